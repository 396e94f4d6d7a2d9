// A reverse proxy of Go's standard library, as Caddy and Traefik are built on it.
//
// main TARGET IDLE: listens on a free loopback port, passes everything on to the URL TARGET, and
// keeps idle connections to it for the duration IDLE.
package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	target, err := url.Parse(os.Args[1])
	if err != nil {
		panic(err)
	}
	idle, err := time.ParseDuration(os.Args[2])
	if err != nil {
		panic(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{IdleConnTimeout: idle, MaxIdleConnsPerHost: 1000}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	fmt.Fprintf(os.Stderr, "{\"event\": \"listening\", \"port\": %d}\n", port)
	panic(http.Serve(listener, proxy))
}
