/** The client of rerankd: a query and documents in, ranked results out. Needs nothing but `fetch`. */
export { RerankerClient } from "./client.js";
export type { CallOptions, ClientOptions, RerankOptions, ScoreOptions } from "./client.js";
export type {
  Cascade,
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
  RelevantSpans,
  Result,
  ServedModel,
  Usage,
} from "./values.js";
export * from "./errors.js";
