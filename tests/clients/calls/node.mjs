// The clients of npm. Prints one JSON line a call, as runner.py does.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const load = async (name) => import(require.resolve(name));

const QUERY = "What is the capital of France?";
const DOCUMENTS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "Bananas are yellow."];
const MODEL = "tiny";
const RIGHT_KEY = "the-right-key";

const calls = [
  ["cohere-ai", "CohereClientV2.rerank", async (url, token, query) => {
    const { CohereClientV2 } = await load("cohere-ai");
    const client = new CohereClientV2({ token, baseUrl: url });
    const answer = await client.rerank({ model: MODEL, query, documents: DOCUMENTS, topN: 3 }, { maxRetries: 0 });
    return answer.results.map((row) => row.index);
  }],
  ["cohere-ai", "CohereClient.rerank", async (url, token, query) => {
    const { CohereClient } = await load("cohere-ai");
    const client = new CohereClient({ token, baseUrl: url });
    const answer = await client.rerank({ model: MODEL, query, documents: DOCUMENTS }, { maxRetries: 0 });
    return answer.results.map((row) => row.index);
  }],
  ["voyageai", "VoyageAIClient.rerank", async (url, apiKey, query) => {
    const { VoyageAIClient } = await load("voyageai");
    const client = new VoyageAIClient({ apiKey, environment: `${url}/v1` });
    const answer = await client.rerank({ model: MODEL, query, documents: DOCUMENTS }, { maxRetries: 0 });
    return answer.data.map((row) => row.index);
  }],
  ["@mixedbread/sdk", "Mixedbread.rerank", async (url, apiKey, query) => {
    const { Mixedbread } = await load("@mixedbread/sdk");
    const client = new Mixedbread({ apiKey, baseURL: url, maxRetries: 0 });
    const answer = await client.rerank({ model: MODEL, query, input: DOCUMENTS });
    return answer.data.map((row) => row.index);
  }],
  ["@langchain/cohere", "CohereRerank", async (url, token, query) => {
    const { CohereClient } = await load("cohere-ai");
    const { CohereRerank } = await load("@langchain/cohere");
    const client = new CohereClient({ token, baseUrl: url });
    const rows = await new CohereRerank({ client, model: MODEL, topN: 3 }).rerank(DOCUMENTS, query);
    return rows.map((row) => row.index);
  }],
  ["@ai-sdk/cohere", "rerank of ai", async (url, apiKey, query) => {
    const { createCohere } = await load("@ai-sdk/cohere");
    return ranking(createCohere({ apiKey, baseURL: `${url}/v2` }), query);
  }],
  ["@ai-sdk/voyage", "rerank of ai", async (url, apiKey, query) => {
    const { createVoyage } = await load("@ai-sdk/voyage");
    return ranking(createVoyage({ apiKey, baseURL: `${url}/v1` }), query);
  }],
  ["@ai-sdk/togetherai", "rerank of ai", async (url, apiKey, query) => {
    const { createTogetherAI } = await load("@ai-sdk/togetherai");
    return ranking(createTogetherAI({ apiKey, baseURL: `${url}/v1` }), query);
  }],
  ["@llamaindex/cohere", "CohereRerank", async (url, apiKey, query) => {
    const { CohereRerank } = await load("@llamaindex/cohere");
    const { TextNode } = await load("@llamaindex/core/schema");
    const nodes = DOCUMENTS.map((text) => ({ node: new TextNode({ text }), score: 0 }));
    const reranker = new CohereRerank({ apiKey, baseUrl: url, model: MODEL, topN: 3 });
    const rows = await reranker.postprocessNodes(nodes, query);
    return rows.map((row) => DOCUMENTS.indexOf(row.node.getContent()));
  }],
  ["@pinecone-database/pinecone", "Pinecone.inference.rerank", async (url, apiKey, query) => {
    const { Pinecone } = await load("@pinecone-database/pinecone");
    const client = new Pinecone({ apiKey, controllerHostUrl: url, maxRetries: 0 });
    const answer = await client.inference.rerank({ model: MODEL, query, documents: DOCUMENTS, topN: 3 });
    return answer.data.map((row) => row.index);
  }],
  ["contextual-client", "ContextualAI.rerank.create", async (url, apiKey, query) => {
    const { default: ContextualAI } = await load("contextual-client");
    const client = new ContextualAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
    const answer = await client.rerank.create({ model: MODEL, query, documents: DOCUMENTS });
    return answer.results.map((row) => row.index);
  }],
  ["zeroentropy", "ZeroEntropy.models.rerank", async (url, apiKey, query) => {
    const { default: ZeroEntropy } = await load("zeroentropy");
    const client = new ZeroEntropy({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
    const answer = await client.models.rerank({ model: MODEL, query, documents: DOCUMENTS });
    return answer.results.map((row) => row.index);
  }],
  ["together-ai", "Together.rerank.create", async (url, apiKey, query) => {
    const { default: Together } = await load("together-ai");
    const client = new Together({ apiKey, baseURL: url, maxRetries: 0 });
    const answer = await client.rerank.create({ model: MODEL, query, documents: DOCUMENTS });
    return answer.results.map((row) => row.index);
  }],
  ["openai", "OpenAI.decisions.create", async (url, apiKey, query) => {
    const { default: OpenAI } = await load("openai");
    const client = new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
    const questions = DOCUMENTS.map((text, place) => (
      { type: "predicate", name: String(place), instructions: `Does this text answer the query? ${text}` }
    ));
    const { answers } = await client.decisions.create({ model: MODEL, input: query, questions });
    return answers.sort((one, other) => other.probability - one.probability).map((answer) => Number(answer.name));
  }],
];

async function ranking(provider, query) {
  const { rerank } = await load("ai");
  const answer = await rerank({ model: provider.reranking(MODEL), query, documents: DOCUMENTS, maxRetries: 0 });
  return answer.ranking.map((row) => row.originalIndex);
}

async function attempt(rank, url, key, query) {
  await fetch(`${url}/-/forget`);
  let outcome;
  try {
    outcome = await rank(url, key, query);
  } catch (error) {
    outcome = `${error.constructor.name}: ${error.message}`.slice(0, 600);
  }
  const paths = await (await fetch(`${url}/-/paths`)).json();
  return [outcome, paths];
}

const servers = JSON.parse(process.argv[2]);
for (const [name, call, rank] of calls) {
  const { version } = JSON.parse(readFileSync(join(process.cwd(), "node_modules", name, "package.json"), "utf8"));
  const [order, paths] = await attempt(rank, servers.open, "any-key", QUERY);
  const [keyed] = await attempt(rank, servers.locked, RIGHT_KEY, QUERY);
  const [wrongKey] = await attempt(rank, servers.locked, "wrong-key", QUERY);
  const [noQuery] = await attempt(rank, servers.open, "any-key", " ");
  const [busy] = await attempt(rank, servers.busy, "any-key", QUERY);
  const row = { package: `npm ${name}`, version, call, order, paths, keyed, 401: wrongKey, 400: noQuery, 429: busy };
  console.log(JSON.stringify(row));
}
process.exit(0);
