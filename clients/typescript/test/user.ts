/** A user's file: it has to pass `tsc --strict` against the packed types, and to run on every runtime. */
import { type Health, InvalidRequest, type RankedResults, RerankerClient, StatusError } from "rerankd";

declare const process: { argv: string[] };

interface Page {
  text: string;
  page: number;
}

const client = new RerankerClient(process.argv[2] ?? "http://127.0.0.1:8000", { timeoutMs: 20_000 });
const pages: Page[] = [
  { text: "Berlin is the capital of Germany.", page: 1 },
  { text: "Paris is the capital of France.", page: 2 },
];

const ranked: RankedResults<Page> = await client.rerank("What is the capital of France?", pages, { topN: 1 });
const best: number | undefined = ranked.results[0]?.document.page;

const answers = await client.batchRerank([
  { query: "capital of Germany", documents: ["Berlin is the capital of Germany.", "Bananas are yellow."] },
  { query: "", documents: ["a document"] },
]);
const order = answers.map((answer) => (answer instanceof StatusError ? answer.name : answer.results.map((row) => row.index)));

const none = await client.rerank("What is the capital of France?", ["Bananas are yellow."], {
  instruction: "@web_search",
  longDocuments: "chunk",
  chunkTokens: 64,
  threshold: 0.999,
});
const fused = await client.rerank("capital of France", ["Berlin", "Paris"], { firstStageScores: [0.1, null], fusion: "rrf" });
const isFused: boolean = fused.results.every((row) => row.modelScore !== undefined && row.score > 0);
const scores: number[] = await client.score([["capital of France", "Paris"]]);
const models: string[] = (await client.models()).map((model) => model.name);

await client.feedback(ranked.id, { clicked: [1] }).catch((error: unknown) => {
  // A server without experiments keeps no answers.
  if (!(error instanceof StatusError) || error.status !== 404) throw error;
});

const health: Health = await client.healthCheck({ signal: AbortSignal.timeout(5_000) });

let refused = "";
try {
  await client.rerank("", ["a document"]);
} catch (error) {
  if (error instanceof InvalidRequest) refused = `${error.code} ${error.param ?? ""}`;
}

const relevant: boolean = !none.nothingRelevant;
console.log(JSON.stringify({ relevant, isFused, pairs: scores.length, models, best, order, status: health.status, refused }));
