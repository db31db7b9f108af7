/** When a failed call is tried again: few times, spread out, and never so often that it feeds an outage. */
import type { ClientError } from "./errors.js";

export const MAX_RETRIES = 2;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;

/** Credits of a {@link RetryBudget}; a call earns one. */
const RETRY_COST = 10;
const LENT = 2 * RETRY_COST;
const MAX_CREDITS = 10 * RETRY_COST;

/**
 * Retries are at most a tenth of a client's calls, however long a server stays down.
 *
 * Every call earns one credit, a retry costs ten. A new client is lent two retries, so that its very first call may
 * be tried again, and its next twenty calls pay them back. Credits beyond ten retries are lost: a long good time
 * must not pay for a flood later.
 */
export class RetryBudget {
  #credits = LENT;
  #owed = LENT;

  earn(): void {
    if (this.#owed > 0) this.#owed -= 1;
    else this.#credits = Math.min(MAX_CREDITS, this.#credits + 1);
  }

  /** Pay for one retry; false when there is not enough. */
  spend(): boolean {
    if (this.#credits < RETRY_COST) return false;
    this.#credits -= RETRY_COST;
    return true;
  }
}

/** The attempts of one call. */
export class Attempts {
  #retried = 0;
  readonly #retries: number;
  readonly #budget: RetryBudget;
  readonly #end: number;

  /** @param timeoutMs milliseconds for the whole call, waits included; Infinity for no limit. */
  constructor(retries: number, budget: RetryBudget, timeoutMs: number) {
    this.#retries = retries;
    this.#budget = budget;
    this.#end = performance.now() + timeoutMs;
    budget.earn();
  }

  /** Milliseconds that the call still has. */
  get remainingMs(): number {
    return this.#end - performance.now();
  }

  /** Milliseconds to wait before the next attempt, with full jitter; undefined when there is to be none. */
  waitAfter(error: ClientError): number | undefined {
    if (!error.retryable || this.#retried >= this.#retries) return undefined;
    const jitter = Math.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#retried);
    const wait = (error.retryAfterMs ?? 0) + jitter;
    if (wait >= this.remainingMs || !this.#budget.spend()) return undefined;
    this.#retried += 1;
    return wait;
  }
}

/** Milliseconds of a `Retry-After` header in either of its forms, seconds or a date; undefined if there is none. */
export function retryAfterMs(header: string | null): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const seconds = Number(header);
  const wait = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : seconds * 1000;
  return Number.isFinite(wait) ? Math.max(0, wait) : undefined;
}
