import { describe, expect, it } from "vitest";
import { Overloaded } from "../src/errors.js";
import { Attempts, RetryBudget, retryAfterMs } from "../src/retry.js";

const overloaded = (afterMs?: number) => new Overloaded("full", { status: 429, retryAfterMs: afterMs });

describe("retries", () => {
  it("are at most a tenth of the calls while a server stays down", () => {
    const budget = new RetryBudget();
    let retries = 0;
    for (let call = 0; call < 500; call += 1) {
      const attempts = new Attempts(2, budget, Infinity);
      while (attempts.waitAfter(overloaded()) !== undefined) retries += 1;
    }
    expect(retries).toBeLessThanOrEqual(50);
    expect(retries).toBeGreaterThan(40);
  });

  it("are not saved up in a long good time", () => {
    const budget = new RetryBudget();
    for (let call = 0; call < 100_000; call += 1) budget.earn();
    expect(Array.from({ length: 1000 }, () => budget.spend()).filter(Boolean)).toHaveLength(10);
  });

  it("are spread over the whole range of a wait", () => {
    const waits = Array.from({ length: 400 }, () => new Attempts(2, new RetryBudget(), Infinity).waitAfter(overloaded())!);
    expect(Math.min(...waits)).toBeLessThan(30);
    expect(Math.max(...waits)).toBeGreaterThan(220);
    expect(Math.max(...waits)).toBeLessThanOrEqual(250);
  });

  it("wait for Retry-After in full, and not at all where the call would be over", () => {
    const wait = new Attempts(2, new RetryBudget(), Infinity).waitAfter(overloaded(4000))!;
    expect(wait).toBeGreaterThanOrEqual(4000);
    expect(wait).toBeLessThanOrEqual(4250);
    const budget = new RetryBudget();
    expect(new Attempts(2, budget, 3000).waitAfter(overloaded(4000))).toBeUndefined();
    expect(budget.spend()).toBe(true);
  });
});

describe("Retry-After", () => {
  it("is seconds or a date", () => {
    expect(retryAfterMs("2")).toBe(2000);
    expect(retryAfterMs("0.5")).toBe(500);
    expect(retryAfterMs("-3")).toBe(0);
    const date = new Date(Date.now() + 60_000).toUTCString();
    expect(retryAfterMs(date)).toBeGreaterThan(58_000);
    expect(retryAfterMs(new Date(0).toUTCString())).toBe(0);
  });

  it("is nothing where it is neither", () => {
    expect([null, "", " ", "soon", "Infinity"].map((value) => retryAfterMs(value))).toEqual(Array(5).fill(undefined));
  });
});
