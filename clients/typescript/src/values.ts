/** What goes into a call and what comes out: plain objects. */
import type { Bodies } from "./generated/wire.js";

/** The body of `POST /rerank`, by the names of the API. */
export type RerankBody = Extract<Bodies["/rerank"], { documents: unknown }>;

/** A text, or any object of yours that has one: only `text` is sent, and results give your object back. */
export type DocumentInput = string | { readonly text: string };

/** A query and a document. */
export type Pair = readonly [query: string, document: string];

/** What happens to documents that are too long; what is left out is as the server has it. */
export interface LongDocumentOptions {
  /** `truncate` cuts them, `chunk` scores them passage by passage, `error` refuses them. */
  readonly longDocuments?: "truncate" | "chunk" | "error" | undefined;
  /** How the scores of a document's passages become its own. */
  readonly chunkAggregation?: "max" | "first" | "mean" | "min" | "top_k_mean" | undefined;
  /** Passages that `top_k_mean` averages. */
  readonly chunkTopK?: number | undefined;
  /** Tokens of one passage; a document of no more is not split. */
  readonly chunkTokens?: number | undefined;
  /** Tokens of a passage that stood in the one before. */
  readonly chunkOverlapTokens?: number | undefined;
  /** Passages of one document; the text behind them is left out. */
  readonly maxChunksPerDoc?: number | undefined;
  /** Whether to cut a pair that is too long; false makes it an error. */
  readonly truncate?: boolean | undefined;
}

/** How the documents of one query are ranked; what is left out is as the server has it. */
export interface RankingOptions extends LongDocumentOptions {
  /** What counts as relevant: a sentence, or `@` and the name of one that the server knows, such as `@code_search language=Python`. */
  readonly instruction?: string | undefined;
  /** How many results to keep. */
  readonly topN?: number | undefined;
  /** The least score of a result; `nothingRelevant` says whether no document reached it. */
  readonly threshold?: number | undefined;
  /** What retrieval said of each document, in their order, on any scale; null for one of which it said nothing. */
  readonly firstStageScores?: ReadonlyArray<number | null> | undefined;
  /** How first-stage scores are taken in. */
  readonly fusion?: "none" | "zscore" | "rrf" | undefined;
  /** The model's share of the fused score, 0 to 1. */
  readonly fusionWeight?: number | undefined;
  /** A cheap order of all documents first, then the model's scores for the best of them. */
  readonly cascade?: Cascade | undefined;
  /** Asks for the sentences of each result that answer the query. */
  readonly relevantSpans?: RelevantSpans | undefined;
  /** Who asks, so that an experiment shows the same user the same arm. */
  readonly user?: string | undefined;
}

/** What a user did with an answer of an experiment: documents by their `index`. */
export interface Feedback {
  readonly clicked?: readonly number[] | undefined;
  /** Quoted, copied or bought. */
  readonly used?: readonly number[] | undefined;
}

export interface Cascade {
  /** The served name that orders all documents, or `first_stage` for the order of their first-stage scores. */
  readonly model?: string | undefined;
  /** Documents that the model then scores. */
  readonly depth?: number | undefined;
  /** Score on, instead, until the first `topN` are settled with this probability. */
  readonly confidence?: number | undefined;
}

export interface RelevantSpans {
  /** The least score of a span. */
  readonly threshold?: number | undefined;
  /** Spans of one document; all where left out. */
  readonly maxSpans?: number | undefined;
}

/** One query of `batchRerank` with its own documents. */
export interface Query<D extends DocumentInput = DocumentInput> extends RankingOptions {
  readonly query: string;
  readonly documents: readonly D[];
}

/**
 * A part of a document with a score of its own. `start` and `end` count code points, not UTF-16 units:
 * `[...text].slice(start, end).join("")`.
 */
export interface Passage {
  readonly start: number;
  readonly end: number;
  readonly score: number;
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
  /** The part that won, where long documents are split. */
  readonly bestPassage: Passage | undefined;
  /** The parts that answer the query, best first, where they were asked for. */
  readonly relevantSpans: readonly Passage[];
  /** The model's own score, where `score` is fused with a first stage's. */
  readonly modelScore: number | undefined;
  /** Whether the model has seen this document, where a cascade ordered first. */
  readonly rescored: boolean | undefined;
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
  /** From the best to the worst, the best `topN` or all; none below the threshold; equal scores in input order. */
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
  /** What the server says beside the scores, such as how many pairs it had to cut. */
  readonly warnings: readonly string[];
  /** What else the server says of the call, such as what became of long documents. */
  readonly meta: Readonly<Record<string, unknown>>;
  /** Whether no document reached the threshold; undefined where there was none. */
  readonly nothingRelevant: boolean | undefined;
}

/** A name that the server answers to. */
export interface ServedModel {
  readonly name: string;
  /** Longer pairs are cut to so many tokens. */
  readonly maxPairTokens: number | undefined;
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
