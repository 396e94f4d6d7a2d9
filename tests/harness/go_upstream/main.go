// A gateway in Go, whose standard library is what the real one is made of.
//
// It logs what it understood of each request, as Go understands it: the first of two query
// parameters, members of a body in any case, the last of two equal ones. Functions answer by
// their name, as badly as a function can. /test/… is for the tests alone.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Seen is a request as Go understood it.
type Seen struct {
	Method    string              `json:"method"`
	Target    string              `json:"target"`
	Path      string              `json:"path"`
	Query     map[string]string   `json:"query"`
	Header    map[string][]string `json:"header"`
	Length    int64               `json:"length"`
	Encodings []string            `json:"encodings"`
	Trailer   map[string][]string `json:"trailer"`
	Body      string              `json:"body"`
	Meant     Meant               `json:"meant"`
}

// Meant is what the body asks for.
type Meant struct {
	Service      string  `json:"service"`
	FunctionName string  `json:"functionName"`
	ServiceName  string  `json:"serviceName"`
	Name         string  `json:"name"`
	Namespace    string  `json:"namespace"`
	Replicas     *uint64 `json:"replicas"`
}

type upstream struct {
	lock sync.Mutex
	seen []Seen
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/test/seen":
		u.lock.Lock()
		defer u.lock.Unlock()
		json.NewEncoder(w).Encode(u.seen)
		u.seen = []Seen{}
		return
	case strings.HasPrefix(r.URL.Path, "/function/early."):
		// It answers without reading the body.
		u.log(r, nil)
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	u.log(r, body)
	if strings.HasPrefix(r.URL.Path, "/function/") {
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/function/"), ".")
		answer(name, w, r, body)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/system/namespaces" {
		io.WriteString(w, `["dev","staging"]`)
		return
	}
	io.WriteString(w, "[]")
}

func (u *upstream) log(r *http.Request, body []byte) {
	query := map[string]string{}
	for name := range r.URL.Query() {
		query[name] = r.URL.Query().Get(name)
	}
	var meant Meant
	json.Unmarshal(body, &meant)
	u.lock.Lock()
	defer u.lock.Unlock()
	u.seen = append(u.seen, Seen{
		r.Method, r.RequestURI, r.URL.Path, query, r.Header.Clone(), r.ContentLength,
		r.TransferEncoding, r.Trailer.Clone(), string(body), meant,
	})
}

// answer is what the function *name* says.
func answer(name string, w http.ResponseWriter, r *http.Request, body []byte) {
	if status, err := strconv.Atoi(strings.TrimPrefix(name, "status-")); err == nil {
		w.Header().Set("ETag", `"a"`)
		w.WriteHeader(status)
		return
	}
	flush := func() { w.(http.Flusher).Flush() }
	switch name {
	case "tunnel":
		hijack(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n", true)
	case "unasked":
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false)
	case "hints":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "after the hints")
	case "stream":
		for piece := 0; piece < 3; piece++ {
			fmt.Fprintf(w, "piece %d\n", piece)
			flush()
			time.Sleep(20 * time.Millisecond)
		}
	case "trailer":
		w.Header().Set("Trailer", "X-Checksum")
		io.WriteString(w, "hello")
		flush()
		w.Header().Set("X-Checksum", "abc")
	case "abort":
		io.WriteString(w, "half")
		flush()
		panic(http.ErrAbortHandler)
	case "nothing":
		panic(http.ErrAbortHandler)
	default:
		w.Header().Set("X-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}
}

// hijack writes *text*; then it echoes what it reads, or sends an answer that nobody asked for.
func hijack(w http.ResponseWriter, text string, echo bool) {
	connection, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	buffered.WriteString(text)
	buffered.Flush()
	if echo {
		io.Copy(connection, connection)
		return
	}
	time.Sleep(50 * time.Millisecond)
	io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!")
	time.Sleep(time.Second)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Printf("{\"event\": \"listening\", \"port\": %d}\n", port)
	os.Stdout.Sync()
	server := &http.Server{Handler: &upstream{seen: []Seen{}}}
	server.Serve(listener)
}
