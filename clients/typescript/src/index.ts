/** The client of rerankd: a query and documents in, ranked results out. Needs nothing but `fetch`. */
export { RerankerClient } from "./client.js";
export type { CallOptions, ClientOptions, RerankOptions } from "./client.js";
export type { DocumentError, DocumentInput, Health, Query, RankedResults, Result, Usage } from "./values.js";
export * from "./errors.js";
