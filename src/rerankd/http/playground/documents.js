// Texts out of a text field or a file.

const MAX_FILE_BYTES = 4 * 1024 * 1024;
const TEXT_COLUMNS = ["text", "document", "content", "passage", "body", "title"];

/** The documents of a text: its lines, or its paragraphs. */
export function split(text, by) {
  const parts = by === "paragraph" ? text.split(/\r?\n[^\S\n]*\r?\n/) : text.split(/\r?\n/);
  return parts.map((part) => part.trim()).filter(Boolean);
}

/** The text that `split` takes apart into these documents again, and how it has to. */
export function join(documents) {
  const by = documents.some((document) => document.includes("\n")) ? "paragraph" : "line";
  const parts = documents.map((document) => document.trim().replace(/\n\s*\n/g, "\n"));
  return { text: parts.join(by === "paragraph" ? "\n\n" : "\n"), by };
}

/** The documents of a file; throws an Error whose message is a key of the page's words. */
export async function readFile(file) {
  if (file.size > MAX_FILE_BYTES) throw new Error("fileTooLarge");
  const text = await file.text();
  const found = texts(text, file.name.split(".").pop().toLowerCase()).map((one) => one.trim()).filter(Boolean);
  if (found.length === 0) throw new Error("fileEmpty");
  return found;
}

function texts(text, ending) {
  try {
    if (ending === "json") return JSON.parse(text).map(textOf);
    if (ending === "jsonl" || ending === "ndjson") return split(text, "line").map((line) => textOf(JSON.parse(line)));
  } catch {
    throw new Error("fileEmpty");
  }
  if (ending === "csv" || ending === "tsv") return column(rows(text, ending === "tsv" ? "\t" : ","));
  return split(text, /\n\s*\n/.test(text) ? "paragraph" : "line");
}

function textOf(value) {
  if (typeof value === "string") return value;
  const key = TEXT_COLUMNS.find((name) => typeof value?.[name] === "string");
  return key ? value[key] : "";
}

/** The column that a heading calls the text; where none does, the first, its first row included. */
function column(table) {
  const headings = (table[0] ?? []).map((heading) => heading.trim().toLowerCase());
  const name = TEXT_COLUMNS.find((known) => headings.includes(known));
  const place = name ? headings.indexOf(name) : 0;
  return (name ? table.slice(1) : table).map((row) => row[place] ?? "");
}

/** Rows of CSV: a field in quotes may hold separators, line ends, and quotes written twice. */
function rows(text, separator) {
  const table = [[""]];
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at];
    const row = table.at(-1);
    if (quoted) {
      if (letter !== '"') row[row.length - 1] += letter;
      else if (text[at + 1] === '"') (row[row.length - 1] += '"'), (at += 1);
      else quoted = false;
    } else if (letter === '"') quoted = true;
    else if (letter === separator) row.push("");
    else if (letter === "\n") table.push([""]);
    else if (letter !== "\r") row[row.length - 1] += letter;
  }
  return table;
}
