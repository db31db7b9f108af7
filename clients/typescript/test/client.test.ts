import { describe, expect, it } from "vitest";
import { CallTimeout, ConnectionFailed, InvalidResponse, ReadTimeout, RerankerClient } from "../src/index.js";

const answer = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });

/** A fetch that answers nothing until its signal ends it, as a real one does. */
const silent: typeof fetch = (_, init) =>
  new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)));

describe("documents", () => {
  it("come back as the very objects that were passed in", async () => {
    const documents = [{ text: "a", page: 1 }, { text: "b", page: 7 }];
    const client = new RerankerClient("http://server.test", { fetch: async () => answer({ scores: [0.1, 0.9] }) });
    const { results } = await client.rerank("q", documents);
    expect(results[0]?.document).toBe(documents[1]);
    expect(results[0]?.document.page).toBe(7);
  });

  it("have to be an array: a text is not many letters", async () => {
    const client = new RerankerClient("http://server.test", { fetch: silent });
    await expect(client.rerank("q", "text" as unknown as string[])).rejects.toThrow(TypeError);
  });
});

describe("an AbortSignal", () => {
  it("ends a call with its own reason", async () => {
    const controller = new AbortController();
    const call = new RerankerClient("http://server.test", { fetch: silent }).rerank("q", ["a"], { signal: controller.signal });
    controller.abort(new Error("the user left"));
    await expect(call).rejects.toThrow("the user left");
  });

  it("that is over before the call begins sends nothing", async () => {
    let calls = 0;
    const client = new RerankerClient("http://server.test", { fetch: async () => answer({ scores: [++calls] }) });
    await expect(client.rerank("q", ["a"], { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: "AbortError" });
    expect(calls).toBe(0);
  });

  it("ends the wait before another attempt", async () => {
    const controller = new AbortController();
    const busy = async () => new Response('{"code": "overloaded", "message": "full"}', { status: 429, headers: { "Retry-After": "20" } });
    const call = new RerankerClient("http://server.test", { fetch: busy }).rerank("q", ["a"], { signal: controller.signal });
    setTimeout(() => controller.abort(), 20);
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("time", () => {
  it("that is over is a ReadTimeout and is not tried again", async () => {
    let calls = 0;
    const counted: typeof fetch = (input, init) => ((calls += 1), silent(input, init));
    const client = new RerankerClient("http://server.test", { fetch: counted, timeoutMs: 30 });
    const error = await client.rerank("q", ["a"]).catch((raised: unknown) => raised);
    expect(error).toBeInstanceOf(ReadTimeout);
    expect(error).toBeInstanceOf(CallTimeout);
    expect(calls).toBe(1);
  });

  it("covers a body that stops halfway", async () => {
    const stuck: typeof fetch = async (_, init) => {
      const body = new ReadableStream({
        start: (controller) => init?.signal?.addEventListener("abort", () => controller.error(init.signal?.reason)),
      });
      return new Response(body);
    };
    const client = new RerankerClient("http://server.test", { fetch: stuck });
    await expect(client.rerank("q", ["a"], { timeoutMs: 30 })).rejects.toBeInstanceOf(ReadTimeout);
  });

  it("without an end sends no deadline", async () => {
    const seen: Array<string | null> = [];
    const client = new RerankerClient("http://server.test", {
      timeoutMs: Infinity,
      fetch: async (_, init) => (seen.push(new Headers(init?.headers).get("X-Request-Timeout-Ms")), answer({ scores: [1] })),
    });
    await client.rerank("q", ["a"]);
    expect(seen).toEqual([null]);
  });
});

describe("healthCheck", () => {
  const health = (body: unknown, status: number) =>
    new RerankerClient("http://server.test", { fetch: async () => answer(body, status) }).healthCheck();

  it("tells how the server is, healthy or not", async () => {
    const healthy = { status: "healthy", state: "ready", model_loaded: true, reason: null, model: "tiny" };
    expect(await health(healthy, 200)).toMatchObject({ status: "healthy", modelLoaded: true, model: "tiny" });
    const loading = { status: "unhealthy", state: "loading", model_loaded: false, reason: "the weights are read" };
    expect(await health(loading, 503)).toMatchObject({ status: "unhealthy", reason: "the weights are read" });
  });

  it("rejects where the answer is a stranger's", async () => {
    await expect(health({ ok: true }, 200)).rejects.toBeInstanceOf(InvalidResponse);
  });
});

describe("a client", () => {
  it("takes an address and nothing else", () => {
    for (const address of ["", "server:8000", "ftp://server", "http://"]) {
      expect(() => new RerankerClient(address)).toThrow(TypeError);
    }
    expect(() => new RerankerClient("http://s", { retries: 3 })).toThrow(RangeError);
    expect(() => new RerankerClient("http://s", { timeoutMs: 0 })).toThrow(RangeError);
    expect(() => new RerankerClient("http://s", { timeoutMs: Number.NaN })).toThrow(RangeError);
  });

  it("says what broke the connection", async () => {
    const broken: typeof fetch = async () => {
      throw new TypeError("fetch failed", { cause: { code: "ECONNREFUSED", message: "connect ECONNREFUSED 127.0.0.1:1" } });
    };
    const error = await new RerankerClient("http://s", { fetch: broken, retries: 0 }).rerank("q", ["a"]).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ConnectionFailed);
    expect((error as Error).message).toContain("ECONNREFUSED");
  });
});
