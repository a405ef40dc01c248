// Makes NAME.wasm of this folder: a component with plugin.toml in the custom section `pcoder:manifest`.
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const here = fileURLToPath(new URL(".", import.meta.url));

// Your copy of the contract, or that of pcoder's own repository while the template still lies in it.
const contract = [join(here, "wit"), join(here, "../../wit/pcoder-plugin@0.1.0")].find(existsSync);
if (!contract) {
  throw new Error("copy pcoder's folder `wit/pcoder-plugin@0.1.0` here and call it `wit`");
}

// A package and its dependencies, where the tool looks for them.
const wit = join(here, "build/wit");
await rm(wit, { recursive: true, force: true });
await mkdir(join(wit, "deps/pcoder-plugin"), { recursive: true });
await cp(join(contract, "deps"), join(wit, "deps"), { recursive: true });
for (const name of await readdir(contract)) {
  if (name.endsWith(".wit")) {
    await cp(join(contract, name), join(wit, "deps/pcoder-plugin", name));
  }
}
await cp(join(here, "world.wit"), join(wit, "world.wit"));

const { component } = await componentize({
  sourcePath: join(here, "src/plugin.js"),
  witPath: wit,
  worldName: "plugin",
  // `fetch` would import `wasi:http`, which only providers may have.
  disableFeatures: ["http", "fetch-event"],
});

const manifest = await readFile(join(here, "plugin.toml"));
const name = /^name = "([a-z0-9-]+)"$/m.exec(manifest.toString())?.[1];
if (!name) {
  throw new Error("plugin.toml has no line `name = \"…\"`");
}
await writeFile(join(here, `${name}.wasm`), Buffer.concat([component, section("pcoder:manifest", manifest)]));
console.log(`${name}.wasm`);

// A custom section: the id 0, its size, the length of its name, its name, its content.
function section(name, content) {
  const body = Buffer.concat([leb128(name.length), Buffer.from(name), content]);
  return Buffer.concat([Buffer.from([0]), leb128(body.length), body]);
}

function leb128(value) {
  const bytes = [];
  while (value > 0x7f) {
    bytes.push((value & 0x7f) | 0x80);
    value >>>= 7;
  }
  return Buffer.from([...bytes, value]);
}
