// Runs ../federate.sh and ends as it ends. No npm package, and no logic of the login, is here.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const script = fileURLToPath(new URL("../federate.sh", import.meta.url));

// Runs `federate.sh COMMAND` with *variables* in its environment.
export function start(command, variables = {}) {
  const child = spawn("sh", [script, command], {
    env: { ...process.env, ...variables },
    stdio: "inherit",
  });
  child.on("error", (error) => {
    console.log(`::error title=Federation::The shell sh could not be started (${error.code}).`);
    process.exitCode = 1;
  });
  child.on("exit", (code) => {
    process.exitCode = code ?? 1;
  });
  // When a job is cancelled, its runner sends SIGINT, and some seconds later SIGTERM. The login goes
  // on for these seconds: once it has written down its token, the end of the job can revoke it.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
}
