/** The client: `fetch` with a deadline, retries and errors of its own. */
import { ClientError, ReadTimeout, type StatusError } from "./errors.js";
import { Attempts, MAX_RETRIES, RetryBudget } from "./retry.js";
import type { DocumentInput, Feedback, Health, LongDocumentOptions, Pair, Query, RankedResults, RankingOptions, ServedModel } from "./values.js";
import { batchCall, type Call, feedbackCall, healthCall, modelsCall, readAnswer, rerankCall, scoreCall, transportError } from "./wire.js";

export interface ClientOptions {
  /** Sent as `Authorization: Bearer`. */
  readonly apiKey?: string | undefined;
  /** Milliseconds for a whole call with its retries; 30 000 by default, `Infinity` leaves the deadline to the server. */
  readonly timeoutMs?: number | undefined;
  /** Further attempts, 0 to 2, after 408, 429, 503 and failed connections; 2 by default. */
  readonly retries?: number | undefined;
  /** Another `fetch`: for tests, proxies and runtimes that bring their own. */
  readonly fetch?: typeof globalThis.fetch | undefined;
}

export interface CallOptions {
  /** Ends the call: it rejects with the signal's reason, and the server drops the work. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for this call in place of the client's own. */
  readonly timeoutMs?: number | undefined;
}

export interface RerankOptions extends CallOptions, RankingOptions {
  /** A served name; left out, the server's first. */
  readonly model?: string | undefined;
  /** Logits instead of probabilities in 0..1. */
  readonly rawScores?: boolean | undefined;
}

export interface ScoreOptions extends CallOptions, LongDocumentOptions {
  /** What counts as relevant, as in `rerank`. */
  readonly instruction?: string | undefined;
  /** A served name; left out, the server's first. */
  readonly model?: string | undefined;
  /** Logits instead of probabilities in 0..1. */
  readonly rawScores?: boolean | undefined;
}

const DEADLINE_HEADER = "X-Request-Timeout-Ms";
/** The longest delay that a timer of JavaScript can have. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Ranks documents with a rerankd server.
 *
 * ```ts
 * const client = new RerankerClient("http://127.0.0.1:8000");
 * const { results } = await client.rerank("capital of France", ["Berlin …", "Paris …"], { topN: 1 });
 * console.log(results[0]?.score, results[0]?.text);
 * ```
 *
 * Every call rejects with a `ClientError`, whose tree `errors.ts` draws, or with the reason of your own signal.
 */
export class RerankerClient {
  readonly #address: string;
  readonly #headers: Headers;
  readonly #timeoutMs: number;
  readonly #retries: number;
  readonly #fetch: typeof globalThis.fetch;
  readonly #budget = new RetryBudget();

  /** @param baseUrl the server's address; a path before the routes is kept. */
  constructor(baseUrl: string, options: ClientOptions = {}) {
    this.#address = baseAddress(baseUrl);
    this.#headers = new Headers({ Accept: "application/json" });
    if (options.apiKey !== undefined) this.#headers.set("Authorization", `Bearer ${options.apiKey}`);
    this.#timeoutMs = checkedTimeout(options.timeoutMs ?? 30_000);
    this.#retries = checkedRetries(options.retries ?? MAX_RETRIES);
    // Called as a plain function: a browser's own fetch refuses any other `this`.
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  /** Order `documents` by how well each answers `query`. */
  rerank<D extends DocumentInput>(query: string, documents: readonly D[], options: RerankOptions = {}): Promise<RankedResults<D>> {
    const { model, rawScores, ...ranking } = options;
    return this.#send(() => rerankCall({ ...ranking, query, documents }, model, rawScores), options);
  }

  /** Rank several queries in one call, scored together; a query that fails alone is its error in the array. */
  batchRerank<D extends DocumentInput>(
    queries: ReadonlyArray<Query<D>>,
    options: CallOptions & { readonly model?: string | undefined } = {},
  ): Promise<Array<RankedResults<D> | StatusError>> {
    return this.#send(() => batchCall(queries, options.model), options);
  }

  /** The score of each query with its document, in order. A pair that has none is an error of the whole call. */
  async score(pairs: readonly Pair[], options: ScoreOptions = {}): Promise<number[]> {
    return pairs.length === 0 ? [] : this.#send(() => scoreCall(pairs, options), options);
  }

  /** The names that the server answers to, its default first. */
  models(options: CallOptions = {}): Promise<ServedModel[]> {
    return this.#send(modelsCall, options);
  }

  /** Tell what a user did with an answer, by its `id`; when this resolves it is on the server's disk. */
  feedback(id: string, feedback: Feedback, options: CallOptions = {}): Promise<void> {
    return this.#send(() => feedbackCall(id, feedback), options);
  }

  /** How the server is. An unhealthy server is an answer; only one that cannot be asked rejects. */
  healthCheck(options: CallOptions = {}): Promise<Health> {
    return this.#send(healthCall, options);
  }

  async #send<T>(build: () => Call<T>, options: CallOptions): Promise<T> {
    const call = build();
    const attempts = new Attempts(this.#retries, this.#budget, checkedTimeout(options.timeoutMs ?? this.#timeoutMs));
    for (;;) {
      try {
        return await this.#attempt(call, attempts.remainingMs, options.signal);
      } catch (error) {
        const wait = error instanceof ClientError ? attempts.waitAfter(error) : undefined;
        if (wait === undefined) throw error;
        await sleep(wait, options.signal);
      }
    }
  }

  async #attempt<T>(call: Call<T>, remainingMs: number, signal: AbortSignal | undefined): Promise<T> {
    signal?.throwIfAborted();
    const leftMs = Math.max(1, remainingMs);
    const controller = new AbortController();
    const abort = () => controller.abort();
    const timer = leftMs <= MAX_TIMER_MS ? setTimeout(abort, leftMs) : undefined;
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const response = await this.#fetch(this.#address + call.path, this.#request(call, leftMs, controller.signal));
      return readAnswer(call, response, await response.text());
    } catch (error) {
      if (error instanceof ClientError) throw error;
      signal?.throwIfAborted();
      if (controller.signal.aborted) throw new ReadTimeout("no answer in time", { cause: error });
      throw transportError(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  #request(call: Call<unknown>, leftMs: number, signal: AbortSignal): RequestInit {
    const headers = new Headers(this.#headers);
    // What is left of the call's time, so that the server drops work whose answer nobody waits for.
    if (Number.isFinite(leftMs)) headers.set(DEADLINE_HEADER, String(Math.ceil(leftMs)));
    // A redirect is not followed: the key stays where it was meant for.
    const request: RequestInit = { method: "GET", headers, signal, redirect: "manual" };
    if (call.body === undefined) return request;
    headers.set("Content-Type", "application/json");
    return { ...request, method: "POST", body: JSON.stringify(call.body) };
  }
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) abort();
  });
}

/** The server's address without a slash at its end; throws a TypeError where it is none. */
function baseAddress(baseUrl: string): string {
  const address = baseUrl.trim().replace(/\/+$/, "");
  if (!/^https?:\/\/[^/]/i.test(address)) throw new TypeError("baseUrl has to be an address such as http://127.0.0.1:8000");
  new URL(address);
  return address;
}

function checkedTimeout(milliseconds: number): number {
  if (!(milliseconds > 0)) throw new RangeError("timeoutMs has to be more than 0 milliseconds");
  return milliseconds;
}

function checkedRetries(retries: number): number {
  if (!Number.isInteger(retries) || retries < 0 || retries > MAX_RETRIES) {
    throw new RangeError(`retries has to be 0 to ${MAX_RETRIES}: more of them only feed an outage`);
  }
  return retries;
}
