/** Calls are built, answers read and errors told apart by plain functions; nothing here does I/O. */
import { ClientError, ConnectTimeout, ConnectionFailed, InvalidRequest, InvalidResponse, ReadTimeout, ServerError, StatusError } from "./errors.js";
import { BY_CODE, BY_STATUS } from "./generated/errors.js";
import type { Answers, Bodies } from "./generated/wire.js";
import { retryAfterMs } from "./retry.js";
import type {
  DocumentError,
  DocumentInput,
  Feedback,
  Health,
  LongDocumentOptions,
  Pair,
  Passage,
  Query,
  RankedResults,
  RankingOptions,
  RerankBody,
  Result,
  ServedModel,
  Usage,
} from "./values.js";

type RerankAnswer = Exclude<Answers["/rerank"], readonly unknown[]>;

/** One call: where it goes, what it says (nothing: a GET), and how its answer is read. */
export interface Call<T> {
  readonly path: string;
  readonly body?: object;
  /** Statuses beside 2xx whose body is the answer. */
  readonly alsoAnswers?: readonly number[];
  readonly read: (answer: unknown) => T;
}

/** The API's names of what may be said of a query's ranking. */
const FIELDS: { readonly [name in keyof RankingOptions]-?: keyof RerankBody } = {
  instruction: "instruction",
  topN: "top_n",
  threshold: "score_threshold",
  truncate: "truncate",
  longDocuments: "long_documents",
  chunkAggregation: "chunk_aggregation",
  chunkTopK: "chunk_top_k",
  chunkTokens: "chunk_tokens",
  chunkOverlapTokens: "chunk_overlap_tokens",
  maxChunksPerDoc: "max_chunks_per_doc",
  firstStageScores: "first_stage_scores",
  fusion: "fusion",
  fusionWeight: "fusion_weight",
  cascade: "cascade",
  relevantSpans: "relevant_spans",
  user: "user",
};

export function rerankCall<D extends DocumentInput>(
  asked: Query<D>,
  model: string | undefined,
  rawScores: boolean | undefined,
): Call<RankedResults<D>> {
  const body: RerankBody = { ...item(asked, model), return_documents: false };
  if (rawScores) body.raw_scores = true;
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

export interface Scoring extends LongDocumentOptions {
  readonly instruction?: string | undefined;
  readonly model?: string | undefined;
  readonly rawScores?: boolean | undefined;
}

export function scoreCall(pairs: readonly Pair[], scoring: Scoring): Call<number[]> {
  const texts = { queries: pairs.map(([query]) => query), documents: pairs.map(([, document]) => document) };
  const body: Record<string, unknown> = { ...fields(scoring), ...texts };
  if (scoring.model !== undefined) body["model"] = scoring.model;
  if (scoring.rawScores) body["use_activation"] = false;
  const read = (answer: unknown) => {
    const scores = rows(asObject(answer)["data"]).map((row) => row["score"]);
    const found = scores.filter((score) => typeof score === "number");
    if (found.length !== scores.length || found.length !== pairs.length) {
      throw new InvalidResponse("the answer has not one score for every pair");
    }
    return found;
  };
  return { path: "/score", body, read };
}

export function modelsCall(): Call<ServedModel[]> {
  const read = (answer: unknown) => {
    const { data } = asObject(answer);
    if (!Array.isArray(data)) throw new InvalidResponse("the answer has no list of models");
    return data.map((row: unknown) => {
      const { id, max_model_len: longest } = asObject(row);
      return { name: text(id), maxPairTokens: typeof longest === "number" ? longest : undefined };
    });
  };
  return { path: "/v1/models", read };
}

export function feedbackCall(id: string, feedback: Feedback): Call<void> {
  const { clicked = [], used = [] } = feedback;
  return { path: "/feedback", body: { request_id: id, clicked, used }, read: () => undefined };
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
  const body: RerankBody = { ...fields(query), query: query.query, documents: query.documents.map(textOf) };
  if (model !== undefined) body.model = model;
  return body;
}

/** What is said of a ranking, by the API's names. */
function fields(options: RankingOptions): Partial<RerankBody> {
  const given = Object.entries(FIELDS).map(([name, field]) => [field, options[name as keyof RankingOptions]]);
  const found: Partial<RerankBody> = Object.fromEntries(given.filter(([, value]) => value !== undefined));
  if (options.relevantSpans) {
    const { threshold, maxSpans } = options.relevantSpans;
    found.relevant_spans = { mode: "enabled", threshold: threshold ?? null, max_spans: maxSpans ?? null };
  }
  return found;
}

function ranked<D extends DocumentInput>(answer: Record<string, unknown>, query: Query<D>): RankedResults<D> {
  const facts = answer as RerankAnswer & { errors?: unknown[] };
  const { documents, topN, threshold } = query;
  const scores = facts.scores;
  if (!Array.isArray(scores) || scores.length !== documents.length || !scores.every(isScore)) {
    throw new InvalidResponse("the answer has not one score for every document");
  }
  const said = new Map(rows(facts.results).map((row) => [row["index"], row]));
  const scored: Array<Result<D>> = documents.flatMap((document, index) => {
    const score = scores[index];
    if (typeof score !== "number" || (threshold !== undefined && score < threshold)) return [];
    return [{ index, score, document, text: textOf(document), ...rowFacts(said.get(index) ?? {}) }];
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
    warnings: warnings(facts.meta),
    meta: isObject(facts.meta) ? facts.meta : {},
    nothingRelevant: threshold === undefined ? undefined : scored.length === 0,
  };
}

/** What a row says of its document beside the score. */
function rowFacts(row: Record<string, unknown>): Pick<Result, "bestPassage" | "relevantSpans" | "modelScore" | "rescored"> {
  const { model_score: modelScore, rescored } = row;
  return {
    bestPassage: passage(row["best_passage"]),
    relevantSpans: rows(row["relevant_spans"]).flatMap((span) => passage(span) ?? []),
    modelScore: typeof modelScore === "number" ? modelScore : undefined,
    rescored: typeof rescored === "boolean" ? rescored : undefined,
  };
}

function passage(value: unknown): Passage | undefined {
  if (!isObject(value)) return undefined;
  const { start, end, score } = value;
  const isPassage = typeof start === "number" && typeof end === "number" && typeof score === "number";
  return isPassage ? { start, end, score } : undefined;
}

function warnings(meta: unknown): string[] {
  const found = isObject(meta) ? meta["warnings"] : undefined;
  return Array.isArray(found) ? found.filter((one): one is string => typeof one === "string") : [];
}

/** The objects of a list, and of anything else none. */
function rows(value: unknown): Array<Record<string, unknown>> {
  return Array.isArray(value) ? value.filter(isObject) : [];
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
