/** What goes into a call and what comes out: plain objects. */

/** A text, or any object of yours that has one: only `text` is sent, and results give your object back. */
export type DocumentInput = string | { readonly text: string };

/** One query of `batchRerank` with its own documents. */
export interface Query<D extends DocumentInput = DocumentInput> {
  readonly query: string;
  readonly documents: readonly D[];
  /** What counts as relevant; left out, the served model's own. */
  readonly instruction?: string | undefined;
  /** How many results to keep; left out, all. */
  readonly topN?: number | undefined;
}

/** A document's place in the ranking. */
export interface Result<D extends DocumentInput = DocumentInput> {
  /** Position in the documents that were sent. */
  readonly index: number;
  /** Probability in 0..1 that the document answers the query, or the logit where `rawScores` asked for it. */
  readonly score: number;
  /** The very document that was passed in. */
  readonly document: D;
  readonly text: string;
}

/** Why one document has no score. */
export interface DocumentError {
  readonly index: number;
  readonly code: string;
  readonly message: string;
}

/** Tokens that the server read for a call, prompts included. */
export interface Usage {
  readonly promptTokens: number;
  readonly totalTokens: number;
}

export interface RankedResults<D extends DocumentInput = DocumentInput> {
  /** From the best to the worst, the best `topN` or all; equal scores in input order. */
  readonly results: ReadonlyArray<Result<D>>;
  /** One score a document in input order, `null` where the server failed on that document. */
  readonly scores: ReadonlyArray<number | null>;
  /** Name of the model that scored. */
  readonly model: string;
  /** The server's id of the answer. */
  readonly id: string;
  /** Tokens, where the server counted them. */
  readonly usage: Usage | undefined;
  /** The documents that have no score, and why. */
  readonly errors: readonly DocumentError[];
}

/** What `GET /health` says. */
export interface Health {
  readonly status: "healthy" | "unhealthy";
  /** `loading`, `ready`, `draining` or `dead`. */
  readonly state: string;
  readonly modelLoaded: boolean;
  /** Why the server is unhealthy. */
  readonly reason: string | undefined;
  /** Name of the default model, once it is loaded. */
  readonly model: string | undefined;
}
