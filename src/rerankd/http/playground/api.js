// What the page asks the server. Addresses are relative, so that a prefix before the routes is kept.

/** An error answer, or none at all (`code` "unreachable"). */
export class CallError extends Error {
  constructor(message, { status = 0, code = "unreachable", param = "", requestId = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, param, requestId, retryAfter });
  }
}

/** The address of the server that this page came from, without a slash at its end. */
export const serverAddress = () => new URL(".", location.href).href.replace(/\/$/, "");

export const info = (key) => call("info", { key });

/** The instructions that the server knows by name. */
export const instructions = (key) => call("v1/instructions", { key });

export const health = async () => {
  const response = await fetch(`${serverAddress()}/health`).catch(() => undefined);
  return response ? response.json().catch(() => undefined) : undefined;
};

/** The body of one call: what was left empty is left out, so that the server's default applies. */
export function body({ query, documents, ...setting }) {
  return { query, documents, ...options(setting) };
}

/** What is said of a ranking beside its texts, by the API's names. */
export function options({ instruction, model, longDocuments, cascadeModel, cascadeDepth }) {
  const cascade = cascadeModel && { model: cascadeModel, ...(cascadeDepth && { depth: cascadeDepth }) };
  const said = { instruction, model, long_documents: longDocuments, cascade };
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value));
}

/** One ranking: the server's answer, and the milliseconds until it was here. */
export async function rerank(asked, { key, signal }) {
  const began = performance.now();
  const answer = await call("rerank", { key, signal, body: { ...body(asked), return_documents: false } });
  return { answer, milliseconds: performance.now() - began };
}

async function call(path, { key, signal, body }) {
  const headers = { Accept: "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(`${serverAddress()}/${path}`, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new CallError("");
  }
  const answer = decoded(text);
  if (response.ok && answer) return answer;
  throw new CallError(answer?.message ?? `${response.status} ${response.statusText}`, {
    status: response.status,
    code: answer?.code ?? "other",
    param: answer?.error?.param ?? "",
    requestId: response.headers.get("X-Request-Id") ?? "",
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
  });
}

function decoded(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
