// dist/esm and dist/cjs from the same source: what differs is the package.json that Node reads beside each.
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const inRoot = (...parts) => join(root, ...parts);
const tsc = inRoot("node_modules", "typescript", "bin", "tsc");

rmSync(inRoot("dist"), { recursive: true, force: true });
execFileSync(process.execPath, [tsc, "-p", inRoot("tsconfig.json")], { stdio: "inherit" });

// The nearest package.json decides which module system a file is compiled to, so CommonJS is built in a copy.
const copy = inRoot("dist", "source");
mkdirSync(copy, { recursive: true });
cpSync(inRoot("src"), join(copy, "src"), { recursive: true });
copyFileSync(inRoot("tsconfig.json"), join(copy, "tsconfig.json"));
writeFileSync(join(copy, "package.json"), '{"type":"commonjs"}\n');
execFileSync(process.execPath, [tsc, "-p", join(copy, "tsconfig.json"), "--outDir", inRoot("dist", "cjs"), "--verbatimModuleSyntax", "false"], {
  stdio: "inherit",
});
rmSync(copy, { recursive: true });
writeFileSync(inRoot("dist", "cjs", "package.json"), '{"type":"commonjs"}\n');

copyFileSync(inRoot("..", "..", "LICENSE"), inRoot("LICENSE"));
