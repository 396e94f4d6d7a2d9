// Logs the job out at its end, also if it failed or was cancelled.

import { start } from "./start.mjs";

start("logout");
