// Made by docs/generate.py from docs/reference/openapi.json; do not edit.

export interface Bodies {
  "/rerank": {
    /** What is searched for. */
    query: string | {
      text: string;
    } | {
      content: string | Array<{
        type?: "text";
        text: string;
      }>;
    };
    /** The texts to be ordered: strings, objects, or one string. */
    documents: string | {
      text: string;
    } | {
      content: string | Array<{
        type?: "text";
        text: string;
      }>;
    } | Array<string | {
      text: string;
    } | {
      content: string | Array<{
        type?: "text";
        text: string;
      }>;
    }>;
    /** What makes a document relevant; the model's own where not given. */
    instruction?: string | null;
    /** How many results to return, the best first; all where not given. */
    top_n?: number | null;
    /** The same as `top_n`. */
    top_k?: number | null;
    /** The least score of a result. With it the answer says in `nothing_relevant` whether no document reached it. */
    score_threshold?: number | null;
    /** Whether the results carry the texts. */
    return_documents?: boolean | null;
    /** Whether to return the logit in place of the probability. */
    raw_scores?: boolean | null;
    /** A served name; any other is answered by the default model unless `strict_models` is set. */
    model?: string | null;
    /** Whether to cut a pair that is too long; false makes it an error. */
    truncate?: boolean | null;
    /** Which end is cut off. */
    truncation_direction?: "Left" | "Right" | "left" | "right" | null;
    /** Tokens after which a document is cut. */
    max_tokens_per_doc?: number | null;
    /** Tokens after which the query is cut. */
    max_tokens_per_query?: number | null;
    /** 0 is served first, 999 last. */
    priority?: number | null;
    /** What happens to a document that is too long: `truncate` cuts it, `chunk` scores it passage by passage and says in `best_passage` which one won, `error` refuses it; the served name's own rule where not given. */
    long_documents?: "truncate" | "chunk" | "error" | null;
    /** How the scores of a document's passages become its own; `top_k_mean` averages the best `chunk_top_k`. */
    chunk_aggregation?: "max" | "first" | "mean" | "min" | "top_k_mean" | null;
    /** Passages that `top_k_mean` averages. */
    chunk_top_k?: number | null;
    /** Tokens of one passage; a document of no more is not split. */
    chunk_tokens?: number | null;
    /** Tokens of a passage that stood in the one before, at most a quarter of it. */
    chunk_overlap_tokens?: number | null;
    /** Passages of one document, no more than the server's own limit; the text behind them is left out. */
    max_chunks_per_doc?: number | null;
    /** What retrieval said of each document, in their order, on any scale; null for one of which it said nothing. Documents that are objects may carry it as `first_stage_score` instead. */
    first_stage_scores?: Array<number | null> | null;
    /** How first-stage scores are taken in: `zscore`, the weighted sum of z-scores, or `rrf`, reciprocal ranks; the served name's own way where not given. `model_score` is then the model's own. */
    fusion?: "none" | "zscore" | "rrf" | null;
    /** The model's share of the fused score. */
    fusion_weight?: number | null;
    /** A cheap order of all documents first, then the model's scores for the best of them. */
    cascade?: {
      /** The served name that orders all documents, or `first_stage` for the order of their first-stage scores. */
      model?: string | null;
      /** Documents that the model then scores. */
      depth?: number | null;
      /** Score on, instead, until the first `top_n` are settled with this probability. */
      confidence?: number | null;
    } | null;
    /** Asks for the sentences of each ranked document that answer the query: each scored by itself, best first. */
    relevant_spans?: {
      /** Whether spans are returned. */
      mode: "enabled" | "disabled";
      /** The least score of a span, 0.1. */
      threshold?: number | null;
      /** Spans of one document; all where not given. */
      max_spans?: number | null;
    } | null;
    /** Who asks, for experiments, where no header says it. */
    user?: string | null;
  } | {
    /** What is searched for. */
    query: string | {
      text: string;
    } | {
      content: string | Array<{
        type?: "text";
        text: string;
      }>;
    };
    /** The texts to be ordered. */
    texts: Array<string>;
    /** Whether to return the logit in place of the probability. */
    raw_scores?: boolean | null;
    /** Whether the results carry the texts. */
    return_text?: boolean | null;
    /** Whether to cut a pair that is too long; false makes it an error. */
    truncate?: boolean | null;
    /** Which end is cut off. */
    truncation_direction?: "Left" | "Right" | "left" | "right" | null;
  };
  "/batch_rerank": {
    /** Queries with their documents: each an object as `POST /rerank` takes it. */
    pairs: Array<Record<string, unknown>>;
  };
}

export interface Answers {
  "/rerank": {
    scores?: Array<number | null>;
    ranked_documents?: Array<string>;
    ranked_scores?: Array<number | null>;
    id?: string;
    object?: string;
    model?: string;
    results?: Array<{
      index?: number;
      relevance_score?: number | null;
      document?: {
        text?: string;
      };
    }>;
    data?: Array<{
      index?: number;
      relevance_score?: number | null;
      score?: number | null;
    }>;
    usage?: {
      prompt_tokens?: number;
      completion_tokens?: number;
      total_tokens?: number;
      rerank_units?: number;
    };
    meta?: {
      api_version?: {
        version?: string;
      };
      billed_units?: {
        search_units?: number;
      };
      tokens?: {
        input_tokens?: number;
        output_tokens?: number;
      };
      cached_documents?: number;
      timings_ms?: {
        tokenise?: number | null;
        queue?: number | null;
        engine?: number | null;
        total?: number | null;
      };
    };
    nothing_relevant?: boolean;
  } | Array<{
    index?: number;
    score?: number | null;
    text?: string;
  }>;
  "/batch_rerank": {
    results?: Array<{
      query?: string;
      scores?: Array<number | null>;
      ranked_documents?: Array<string>;
      ranked_scores?: Array<number | null>;
    } | {
      error?: string;
      code?: string;
    }>;
    warnings?: Array<string>;
  };
}
