// The main job over the generated TypeScript client, as the author of a front end would write it:
// node driver.js URL TOKEN PROFILE EXPID. It prints the same lines as driver.py.
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Schemas = components["schemas"];
type Problem = Schemas["Problem"];
// Only JSON: the log, which can also be had as plain text, is then no union with a string.
type Json = `application/${string}`;
type Api = Client<paths, Json>;
declare const process: { argv: string[] }; // all that is needed of Node

const PATIENCE = 60_000; // milliseconds

/** The data of an answer; throws what the service says when there is none. */
function good<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) {
    const problem = answer.error as Problem | undefined;
    throw new Error(`${answer.response.url}: ${answer.response.status} ${problem?.detail ?? ""}`);
  }
  return answer.data;
}

function bad(answer: { error?: Problem | undefined; response: Response }): Problem {
  if (answer.error === undefined) throw new Error(`${answer.response.url}: expected an error`);
  return answer.error;
}

type Created = Schemas["ExperimentCreatedAnswer"];

/** Commands answer a plan when `dry_run` was asked for, and an operation to `Prefer: respond-async`. */
function isPlan(answer: object): answer is Schemas["PlanAnswer"] {
  return "argv" in answer;
}

function created(answer: Created | Schemas["PlanAnswer"] | Schemas["Operation"]): Created {
  if (isPlan(answer) || "operation_id" in answer) throw new Error("expected a new experiment");
  return answer;
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 200));

async function create(api: Api, profile: string, description: string): Promise<string> {
  const request = {
    params: { header: { "Idempotency-Key": `${Date.now()}-${Math.random()}` } },
    body: { profile_name: profile, command_params: { description, dummy: true, hpc: "local" } },
  } as const;
  const first = created(good(await api.POST("/v4/runners/command/create-experiment", request)));
  const repeated = await api.POST("/v4/runners/command/create-experiment", request);
  if (created(good(repeated)).expid !== first.expid || repeated.response.headers.get("Idempotent-Replayed") !== "true") {
    throw new Error("the repeated request made another experiment");
  }
  good(await api.POST("/v4/runners/command/create-job-list", { body: { profile_name: profile, expid: first.expid } }));
  return first.expid;
}

async function ended(api: Api, expid: string): Promise<Schemas["RunStatusAnswer"]> {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const run = good(await api.POST("/v4/runners/command/get-runner-run-status", { body: { expid } }));
    if (run.status !== "ACTIVE") return run;
    if (Date.now() > deadline) throw new Error(`${expid} is still running after ${PATIENCE} ms`);
    await pause();
  }
}

async function wholeLog(api: Api, id: number): Promise<string> {
  let text = "";
  let offset = 0;
  for (;;) {
    const part = good(await api.GET("/v4/runners/runs/{id}/log", { params: { path: { id }, query: { offset } } }));
    text += part.text ?? "";
    offset = part.next_offset;
    if (part.ended) return text;
  }
}

async function runToCompletion(api: Api, profile: string): Promise<void> {
  const expid = await create(api, profile, "completes");
  const body = { profile_name: profile, expid };
  const plan = good(await api.POST("/v4/runners/command/run-experiment", { body: { ...body, dry_run: true } }));
  console.log("plan:", isPlan(plan) ? plan.argv.join(" ") : "none");
  const started = good(await api.POST("/v4/runners/command/run-experiment", { body }));
  if (isPlan(started)) throw new Error("expected a run");
  console.log("started:", started.message);
  const run = await ended(api, expid);
  const reason: "" | "stopped" | "failed" | "killed" | "lost" | "never_started" | "abandoned" = run.reason;
  console.log("ended:", run.status, run.exit_code, `'${reason}'`, run.runner_id === started.runner_id);
  console.log("log:", (await wholeLog(api, run.runner_id)).includes("Run successful"));
  const page = good(await api.GET("/v4/runners/runs", { params: { query: { expid, status: "COMPLETED" } } }));
  console.log("listed:", page.results.length === 1 && page.results[0]?.runner_id === run.runner_id);
  const params = { path: { id: run.runner_id } };
  const again = good(await api.POST("/v4/runners/runs/{id}/run-again", { params, body: {} }));
  if (isPlan(again)) throw new Error("expected a run");
  console.log("run again:", again.previous_run === run.runner_id, (await ended(api, expid)).status);
}

const list = (words: string[]) => JSON.stringify(words).replaceAll('"', "'").replaceAll(",", ", ");

async function jobs(api: Api, profile_name: string, expid: string): Promise<void> {
  const query = { profile_name, status: "FAILED,RUNNING", page_size: 1 };
  const path = "/v4/runners/experiments/{expid}/jobs";
  const page = good(await api.GET(path, { params: { path: { expid }, query } }));
  const cursor = page.next_cursor ?? "";
  const rest = good(await api.GET(path, { params: { path: { expid }, query: { ...query, cursor } } }));
  const names = [...page.results, ...rest.results].map((job) => job.name);
  console.log("jobs:", page.total, list(Object.keys(page.counts).sort()), list(names));
  console.log("first job:", page.results[0]?.status, page.results[0]?.chunk);
}

async function configurationFiles(api: Api, profile_name: string, expid: string): Promise<void> {
  const params = { path: { expid }, query: { profile_name } };
  const { files } = good(await api.GET("/v4/runners/experiments/{expid}/config", { params }));
  console.log("files:", list(files.map((file) => file.path)));
  const query = { profile_name, path: files[0]?.path ?? "" };
  const address = "/v4/runners/experiments/{expid}/config/file";
  const file = good(await api.GET(address, { params: { path: { expid }, query } }));
  const request = {
    params: { path: { expid }, query, header: { "If-Match": file.etag } },
    body: { content: file.content.replaceAll("1", "2") },
  };
  const change = good(await api.PUT(address, request));
  console.log("changed:", change.is_changed, change.difference.includes("+CHUNKS: 2"));
  const problem = bad(await api.PUT(address, request));
  console.log("changed before:", problem.status, problem.code);
}

async function runAndStop(api: Api, profile: string): Promise<void> {
  const expid = await create(api, profile, "is stopped");
  const body = { profile_name: profile, expid };
  const started = good(await api.POST("/v4/runners/command/run-experiment", { body }));
  if (isPlan(started)) throw new Error("expected a run");
  const again = bad(await api.POST("/v4/runners/command/run-experiment", { body }));
  console.log("again:", again.status, again.code, again.run?.runner_id === started.runner_id);
  const stopped = good(await api.POST("/v4/runners/command/stop-experiment", { body: { expid } }));
  if (isPlan(stopped) || !("status" in stopped)) throw new Error("expected a stopped run");
  console.log("stopped:", stopped.status, stopped.reason === "stopped", stopped.steps.at(-1)?.ended);
  console.log("stop again:", bad(await api.POST("/v4/runners/command/stop-experiment", { body: { expid } })).code);
}

async function inTheBackground(api: Api, profile: string): Promise<void> {
  const expid = await create(api, profile, "is made in the background");
  const accepted = good(
    await api.POST("/v4/runners/command/create-job-list", {
      params: { header: { Prefer: "respond-async" } },
      body: { profile_name: profile, expid },
    }),
  );
  if (!("operation_id" in accepted)) throw new Error("expected an operation");
  let operation: Schemas["Operation"] = accepted;
  const deadline = Date.now() + PATIENCE;
  while (["pending", "running"].includes(operation.status) && Date.now() < deadline) {
    await pause();
    const params = { path: { id: operation.operation_id } };
    operation = good(await api.GET("/v4/runners/operations/{id}", { params }));
  }
  console.log("operation:", operation.kind, operation.status);
}

async function errors(api: Api, url: string, profile: string): Promise<void> {
  const unknown = await api.POST("/v4/runners/command/get-runner-run-status", { body: { expid: "zzzz" } });
  console.log("unknown:", bad(unknown).code);
  const body = { profile_name: profile, expid: "Not an expid" };
  const refused = bad(await api.POST("/v4/runners/command/run-experiment", { body }));
  console.log("refused:", refused.status, refused.code, JSON.stringify(Object.keys(refused.errors ?? {})).replaceAll('"', "'"));
  const stranger = createClient<paths, Json>({ baseUrl: url, headers: { Authorization: "Bearer asr_of_nobody" } });
  console.log("stranger:", bad(await stranger.GET("/v4/runners/configuration/profiles")).code);
}

const [url, token, profile, withJobs] = process.argv.slice(2);
if (url === undefined || token === undefined || profile === undefined || withJobs === undefined) {
  throw new Error("driver.js URL TOKEN PROFILE EXPID");
}
const api = createClient<paths, Json>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
console.log("profile:", good(await api.GET("/v4/runners/configuration/profiles"))[profile]?.RUNNER_TYPE);
const path = { path: { name: profile } };
const needed = good(await api.GET("/v4/runners/profiles/{name}/requirements", { params: path })).requirements;
console.log("needed:", JSON.stringify(needed.filter((each) => each.required).map((each) => each.parameter)));
await runToCompletion(api, profile);
await runAndStop(api, profile);
await inTheBackground(api, profile);
await jobs(api, profile, withJobs);
await configurationFiles(api, profile, withJobs);
await errors(api, url, profile);
