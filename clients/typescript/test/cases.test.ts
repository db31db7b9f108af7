/** M-04: the cases that the Python clients pass, in tests/unit/client/cases.json, passed here too. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import cases from "../../../tests/unit/client/cases.json" with { type: "json" };
import { ClientError, type DocumentInput, type RankedResults, RerankerClient, type Result, type ServedModel, StatusError } from "../src/index.js";

interface Exchange {
  status: number;
  headers?: Record<string, string>;
  body?: unknown;
  text?: string;
  fault?: string;
}

interface Case {
  name: string;
  python_only?: string;
  call: { method: "rank" | "rank_many" | "score" | "models" | "feedback" } & Record<string, unknown>;
  exchanges: Exchange[];
  sent?: Array<{ path: string; body: unknown }>;
  waits?: Array<[number, number]>;
  ranked?: unknown[];
  answer?: unknown;
  error?: { kind: string } & Record<string, unknown>;
}

const REASONS: Record<number, string> = { 307: "Temporary Redirect", 502: "Bad Gateway" };

/** What fetch throws where httpx has an error of that name. */
const CAUSES: Record<string, string> = {
  ConnectError: "ECONNREFUSED",
  ReadError: "ECONNRESET",
  RemoteProtocolError: "UND_ERR_SOCKET",
  ConnectTimeout: "UND_ERR_CONNECT_TIMEOUT",
  ReadTimeout: "UND_ERR_HEADERS_TIMEOUT",
};

/** Plays a case's exchanges and keeps what was sent, and when. */
class Stage {
  readonly sent: Array<{ path: string; body: unknown }> = [];
  readonly headers: Headers[] = [];
  readonly times: number[] = [];
  readonly #exchanges: Exchange[];

  constructor(exchanges: Exchange[]) {
    this.#exchanges = [...exchanges];
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    this.times.push(performance.now());
    this.sent.push({ path: new URL(String(input)).pathname, body: JSON.parse(String(init?.body ?? null)) });
    this.headers.push(new Headers(init?.headers));
    const exchange = this.#exchanges.shift();
    if (exchange === undefined) throw new Error("one call too many");
    if (exchange.fault !== undefined) {
      throw new TypeError("fetch failed", { cause: { code: CAUSES[exchange.fault], message: "on purpose" } });
    }
    const body = exchange.text ?? JSON.stringify(exchange.body);
    const { status, headers = {} } = exchange;
    return new Response(body, { status, headers, statusText: REASONS[status] ?? "" });
  };

  /** Seconds between one attempt and the next. */
  get waits(): number[] {
    return this.times.slice(1).map((time, place) => (time - (this.times[place] ?? 0)) / 1000);
  }
}

/** An object of Python's with the names of this language; whole values stay as they are. */
function camel(value: Record<string, any>): Record<string, any> {
  const isNested = (inner: unknown) => typeof inner === "object" && inner !== null && !Array.isArray(inner);
  const renamed = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [renamed(name), isNested(inner) ? camel(inner) : inner]));
}

function asked(client: RerankerClient, call: Record<string, any>): Promise<unknown> {
  const { method, query, documents, queries, pairs, ...options } = call;
  if (method === "models") return client.models();
  if (method === "feedback") return client.feedback(call["id"], { clicked: call["clicked"], used: call["used"] });
  if (method === "score") return client.score(pairs, camel(options));
  if (method === "rank") return client.rerank(query, documents, camel(options));
  const own = queries.map(({ text, documents, options, ...rest }: Record<string, any>) => (
    { query: text, documents, ...camel(rest), ...camel(options ?? {}) }
  ));
  return client.batchRerank(own, camel(options));
}

async function play({ call }: Case, stage: Stage): Promise<unknown> {
  const client = new RerankerClient("http://server.test/base/", { apiKey: "secret", fetch: stage.fetch });
  const outcome = asked(client, call).catch((error: unknown) => error);
  let done = false;
  void outcome.then(() => (done = true));
  await vi.advanceTimersByTimeAsync(0);
  while (!done) await vi.advanceTimersToNextTimerAsync();
  return outcome;
}

function described(item: RankedResults<DocumentInput> | StatusError): unknown {
  if (item instanceof StatusError) return { error: item.name, message: item.message };
  const rows = item.results.map(rowFacts);
  return {
    ...(item.nothingRelevant === undefined ? {} : { nothing_relevant: item.nothingRelevant }),
    ...(rows.some((row) => Object.keys(row).length > 0) ? { rows } : {}),
    order: item.results.map((result) => result.index),
    scores: item.scores,
    texts: item.results.map((result) => result.text),
    model: item.model,
    id: item.id,
    tokens: item.usage?.totalTokens ?? null,
    errors: item.errors.map((error) => [error.index, error.code, error.message]),
  };
}

/** What a result has beside its score, as far as it has any. */
function rowFacts({ bestPassage, relevantSpans, modelScore, rescored }: Result): Record<string, unknown> {
  const spans = relevantSpans.length > 0 ? relevantSpans.map(({ start, end, score }) => [start, end, score]) : undefined;
  const passage = bestPassage && [bestPassage.start, bestPassage.end, bestPassage.score];
  const known = { best_passage: passage, relevant_spans: spans, model_score: modelScore, rescored };
  return Object.fromEntries(Object.entries(known).filter(([, value]) => value !== undefined));
}

function servedModel({ name, maxPairTokens }: ServedModel): unknown {
  return { name, max_pair_tokens: maxPairTokens ?? null };
}

function facts(error: ClientError, names: string[]): Record<string, unknown> {
  const known: Record<string, unknown> = { kind: error.name, message: error.message };
  known["retry_after"] = error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000;
  if (error instanceof StatusError) {
    const { status, code, param, requestId } = error;
    Object.assign(known, { status, code, param, request_id: requestId });
  }
  return Object.fromEntries(names.map((name) => [name, known[name]]));
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
afterEach(() => void vi.useRealTimers());

describe("the cases of both languages", () => {
  const all = cases as unknown as Case[];

  for (const one of all) {
    it.skipIf(one.python_only)(one.name, async () => {
      const stage = new Stage(one.exchanges);
      const outcome = await play(one, stage);
      if (one.error) {
        expect(outcome).toBeInstanceOf(ClientError);
        expect(facts(outcome as ClientError, Object.keys(one.error))).toEqual(one.error);
      } else {
        expect(outcome).not.toBeInstanceOf(Error);
        const items = Array.isArray(outcome) ? outcome : [outcome];
        if (one.call.method === "models") expect(items.map(servedModel)).toEqual(one.answer);
        else if (one.call.method === "feedback") expect(outcome).toBeUndefined();
        else if (one.call.method === "score") expect(items).toEqual(one.answer);
        else expect(items.map(described)).toEqual(one.ranked);
      }
      expect(stage.sent).toHaveLength(one.exchanges.length);
      const wanted = (one.sent ?? []).map(({ path, body }) => ({ path: `/base${path}`, body }));
      expect(stage.sent.slice(0, wanted.length)).toEqual(wanted);
      expect(stage.waits).toHaveLength(one.waits?.length ?? 0);
      (one.waits ?? []).forEach(([low, high], place) => {
        expect(stage.waits[place]).toBeGreaterThanOrEqual(low);
        expect(stage.waits[place]).toBeLessThanOrEqual(high);
      });
    });
  }

  it("every attempt carries the key and the time that is left", async () => {
    const one = all.find(({ name }) => name.startsWith("503"));
    const stage = new Stage(one!.exchanges);
    await play(one!, stage);
    const left = stage.headers.map((headers) => Number(headers.get("X-Request-Timeout-Ms")));
    expect(stage.headers.map((headers) => headers.get("Authorization"))).toEqual(Array(3).fill("Bearer secret"));
    expect(left[0]).toBe(30_000);
    expect(left[1]).toBeLessThanOrEqual(left[0]!);
    expect(left[2]).toBeLessThanOrEqual(left[1]!);
    expect(left[2]).toBeGreaterThan(29_000);
  });
});
