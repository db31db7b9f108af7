/** Calls are built, answers read and errors told apart by plain functions; nothing here does I/O. */
import { ClientError, ConnectTimeout, ConnectionFailed, InvalidRequest, InvalidResponse, ReadTimeout, ServerError, StatusError } from "./errors.js";
import { BY_CODE, BY_STATUS } from "./generated/errors.js";
import type { Answers, Bodies } from "./generated/wire.js";
import { retryAfterMs } from "./retry.js";
import type { DocumentError, DocumentInput, Health, Query, RankedResults, Result, Usage } from "./values.js";

type RerankBody = Extract<Bodies["/rerank"], { documents: unknown }>;
type RerankAnswer = Exclude<Answers["/rerank"], readonly unknown[]>;

/** One call: where it goes, what it says (nothing: a GET), and how its answer is read. */
export interface Call<T> {
  readonly path: string;
  readonly body?: object;
  /** Statuses beside 2xx whose body is the answer. */
  readonly alsoAnswers?: readonly number[];
  readonly read: (answer: unknown) => T;
}

export interface Asked<D extends DocumentInput> extends Query<D> {
  readonly model?: string | undefined;
  readonly rawScores?: boolean | undefined;
}

export function rerankCall<D extends DocumentInput>(asked: Asked<D>): Call<RankedResults<D>> {
  const body: RerankBody = { ...item(asked, asked.model), return_documents: false };
  if (asked.rawScores) body.raw_scores = true;
  return { path: "/rerank", body, read: (answer) => ranked(asObject(answer), asked) };
}

export function batchCall<D extends DocumentInput>(
  queries: ReadonlyArray<Query<D>>,
  model: string | undefined,
): Call<Array<RankedResults<D> | StatusError>> {
  const body: Bodies["/batch_rerank"] = { pairs: queries.map((query) => ({ ...item(query, model) })) };
  const read = (answer: unknown) => {
    const items = (asObject(answer) as Answers["/batch_rerank"]).results;
    if (!Array.isArray(items) || items.length !== queries.length) {
      throw new InvalidResponse("the answer has not one result for every query");
    }
    return queries.map((query, place) => batchItem(asObject(items[place]), query));
  };
  return { path: "/batch_rerank", body, read };
}

export function healthCall(): Call<Health> {
  // 503 says that the server is unhealthy: an answer to this question, not a failure to answer.
  return { path: "/health", alsoAnswers: [503], read: (answer) => health(asObject(answer)) };
}

/** The answer's value; throws the error that the response stands for. */
export function readAnswer<T>(call: Call<T>, response: Response, text: string): T {
  if (!response.ok && !call.alsoAnswers?.includes(response.status)) throw statusError(response, text);
  const answer = decoded(text);
  if (answer === undefined) throw new InvalidResponse("the answer is not JSON; is this the address of a rerankd server?");
  return call.read(answer);
}

/** Undici, which is Node's fetch, says here which phase took too long; others say nothing. */
const TIMEOUT_CAUSES: Readonly<Record<string, new (message: string, options: ErrorOptions) => ClientError>> = {
  UND_ERR_CONNECT_TIMEOUT: ConnectTimeout,
  UND_ERR_HEADERS_TIMEOUT: ReadTimeout,
  UND_ERR_BODY_TIMEOUT: ReadTimeout,
};

/** The client's word for a failure below HTTP. */
export function transportError(error: unknown): ClientError {
  const cause = (error as { cause?: { code?: unknown; message?: unknown } } | null)?.cause;
  const kind = TIMEOUT_CAUSES[String(cause?.code)] ?? ConnectionFailed;
  const detail = text(cause?.message) || (error instanceof Error ? error.message : "");
  return new kind(detail ? `the connection failed: ${detail}` : "the connection failed", { cause: error });
}

function statusError(response: Response, body: string): StatusError {
  const { code, message, param } = errorFacts(decoded(body));
  const general = response.status >= 500 ? ServerError : StatusError;
  const kind = own(BY_CODE, code) ?? own(BY_STATUS, response.status) ?? general;
  // A browser hides where a redirect leads, and shows it as status 0.
  const status = response.type === "opaqueredirect" ? "with a redirect" : `${response.status} ${response.statusText}`;
  return new kind(message || `the server answered ${status}`.trimEnd(), {
    status: response.status,
    code,
    param,
    requestId: response.headers.get("X-Request-Id") ?? undefined,
    retryAfterMs: retryAfterMs(response.headers.get("Retry-After")),
  });
}

/**
 * What an error body says, as far as it does: our own answers say all at the top; inside `error` other services say
 * it, with a status for a `code`.
 */
function errorFacts(body: unknown): { code: string; message: string; param: string | undefined } {
  if (!isObject(body)) return { code: "", message: text(body), param: undefined };
  const inner = isObject(body["error"]) ? body["error"] : { message: body["error"] };
  return {
    code: text(body["code"]) || text(inner["code"]),
    message: text(body["message"]) || text(inner["message"]) || text(body["detail"]),
    param: text(inner["param"]) || undefined,
  };
}

/** One query as the wire has it; what was not given is left out, so that the server's default applies. */
function item(query: Query, model: string | undefined): RerankBody {
  if (!Array.isArray(query.documents)) throw new TypeError("documents has to be an array of texts");
  const body: RerankBody = { query: query.query, documents: query.documents.map(textOf) };
  if (query.instruction !== undefined) body.instruction = query.instruction;
  if (query.topN !== undefined) body.top_n = query.topN;
  if (model !== undefined) body.model = model;
  return body;
}

function ranked<D extends DocumentInput>(answer: Record<string, unknown>, query: Query<D>): RankedResults<D> {
  const facts = answer as RerankAnswer & { errors?: unknown[] };
  const { documents, topN } = query;
  const scores = facts.scores;
  if (!Array.isArray(scores) || scores.length !== documents.length || !scores.every(isScore)) {
    throw new InvalidResponse("the answer has not one score for every document");
  }
  const scored: Array<Result<D>> = documents.flatMap((document, index) => {
    const score = scores[index];
    return typeof score === "number" ? [{ index, score, document, text: textOf(document) }] : [];
  });
  // sort() is stable, so that equal scores keep input order, as the server's own ranking does.
  scored.sort((one, other) => other.score - one.score);
  return {
    results: scored.slice(0, topN ?? scored.length),
    scores,
    model: text(facts.model),
    id: text(facts.id),
    usage: usage(facts.usage),
    errors: (Array.isArray(facts.errors) ? facts.errors : []).map(documentError),
  };
}

function batchItem<D extends DocumentInput>(answer: Record<string, unknown>, query: Query<D>): RankedResults<D> | StatusError {
  if (!("error" in answer)) return ranked(answer, query);
  const { code, message, param } = errorFacts(answer);
  const kind = own(BY_CODE, code) ?? InvalidRequest;
  return new kind(message || "the query failed", { status: 0, code, param });
}

function documentError(value: unknown): DocumentError {
  const { index, code, message } = asObject(value);
  return { index: typeof index === "number" ? index : -1, code: text(code), message: text(message) };
}

function usage(value: unknown): Usage | undefined {
  if (!isObject(value)) return undefined;
  const { prompt_tokens: prompt, total_tokens: total } = value;
  return typeof prompt === "number" && typeof total === "number" ? { promptTokens: prompt, totalTokens: total } : undefined;
}

function health(answer: Record<string, unknown>): Health {
  const status = answer["status"];
  if (status !== "healthy" && status !== "unhealthy") throw new InvalidResponse("the answer does not say how the server is");
  return {
    status,
    state: text(answer["state"]),
    modelLoaded: answer["model_loaded"] === true,
    reason: text(answer["reason"]) || undefined,
    model: text(answer["model"]) || undefined,
  };
}

/** The row of a table, and nothing that every object has besides. */
function own<V>(table: Readonly<Record<string | number, V>>, key: string | number): V | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

function decoded(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function asObject(value: unknown): Record<string, unknown> {
  if (!isObject(value)) throw new InvalidResponse("the answer is not the JSON object that rerankd sends");
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isScore(value: unknown): boolean {
  return value === null || typeof value === "number";
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function textOf(document: DocumentInput): string {
  return typeof document === "string" ? document : document.text;
}
