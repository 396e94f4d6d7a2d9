// Logs the job in: hands the inputs of the step to federate.sh.

import { readFileSync } from "node:fs";
import { start } from "./start.mjs";

const input = (name) => process.env[`INPUT_${name.toUpperCase()}`] ?? "";

// The repository of a pull request's branch; empty for other events.
function headRepository() {
  try {
    const event = JSON.parse(readFileSync(process.env.GITHUB_EVENT_PATH, "utf8"));
    return event.pull_request?.head?.repo?.full_name ?? "";
  } catch {
    return "";
  }
}

start("github", {
  FEDERATION_URL: input("url"),
  FEDERATION_AUDIENCE: input("audience"),
  FEDERATION_ROLE: input("role"),
  FEDERATION_SCOPE: input("scope"),
  FEDERATION_FUNCTION_AUDIENCE: input("function-audience"),
  FEDERATION_FAAS_CLI: input("faas-cli"),
  FEDERATION_EXPORT: input("export"),
  FEDERATION_EXPECT_ROLE: input("expect-role"),
  FEDERATION_DEBUG: input("debug"),
  FEDERATION_HEAD_REPOSITORY: headRepository(),
});
