// The call of the page, as a program makes it.
import { body, options, serverAddress } from "./api.js";

export const LANGUAGES = { curl: curl, Python: python, TypeScript: typescript };

function curl(asked, keyed) {
  const json = JSON.stringify(body(asked), null, 2).replaceAll("'", "'\\''");
  const key = keyed ? ` \\\n  -H "Authorization: Bearer $RERANKD_KEY"` : "";
  return `curl ${serverAddress()}/rerank \\\n  -H 'Content-Type: application/json'${key} -d '${json}'`;
}

function python(asked, keyed) {
  const { query, documents, ...setting } = asked;
  const said = Object.entries(options(setting)).map(([name, value]) => `${name}=${quoted(value)}`);
  return [
    ...(keyed ? ["import os", ""] : []),
    "from rerankd.client import Client",
    "",
    "documents = [",
    ...documents.map((document) => `    ${quoted(document)},`),
    "]",
    `with Client(${quoted(serverAddress())}${keyed ? ', os.environ["RERANKD_KEY"]' : ""}) as client:`,
    `    for result in client.rank(${[quoted(query), "documents", ...said].join(", ")}):`,
    '        print(f"{result.score:.3f}  {result.document.text}")',
  ].join("\n");
}

function typescript(asked, keyed) {
  const { query, documents, ...setting } = asked;
  const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
  const said = Object.entries(options(setting)).map(([name, value]) => `${camel(name)}: ${quoted(value)}`);
  return [
    'import { RerankerClient } from "rerankd";',
    "",
    "const documents = [",
    ...documents.map((document) => `  ${quoted(document)},`),
    "];",
    `const client = new RerankerClient(${quoted(serverAddress())}${keyed ? ", { apiKey: process.env.RERANKD_KEY }" : ""});`,
    `const { results } = await client.rerank(${[quoted(query), "documents", ...(said.length ? [`{ ${said.join(", ")} }`] : [])].join(", ")});`,
    "for (const { score, text } of results) console.log(score.toFixed(3), text);",
  ].join("\n");
}

/** A string, number or object: JSON's form is Python's and TypeScript's too, but for characters that no line may hold. */
const quoted = (value) => JSON.stringify(value).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029").replaceAll("\u007f", "\\u007f");
