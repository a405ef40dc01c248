// The official SDK against the newer agent, as far as it speaks with it: files, set-up and ports. (Its commands split a
// line of shell at spaces and run the words, which no shell reads.)
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const { connectToSandbox } = await import(pathToFileURL(require.resolve("@codesandbox/sdk/node")));
const headers = { authorization: `Bearer ${process.env.CSB_API_KEY}` };
const post = async (path) => {
  const answer = await fetch(process.env.CSB_BASE_URL + path, { method: "POST", headers, body: "{}" });
  return (await answer.json()).data;
};
const { id } = await post("/sandbox/pcz35m/fork");
const started = await post(`/vm/${id}/start`);
const session = {
  isPint: true,
  sandboxId: id,
  bootupType: started.bootup_type,
  cluster: started.cluster,
  pitcherURL: started.pint_url,
  pitcherToken: started.pint_token,
  workspacePath: started.workspace_path,
  userWorkspacePath: started.user_workspace_path,
};
const client = await connectToSandbox({ session, getSession: async () => session });
assert.equal(client.setup.getSteps()[0].name, "Setup");
await client.fs.writeTextFile("a.txt", "grüße");
assert.equal(await client.fs.readTextFile("a.txt"), "grüße");
await client.fs.mkdir("d");
await client.fs.copy("a.txt", "d/b.txt");
await client.fs.rename("d/b.txt", "d/c.txt");
assert.deepEqual(await client.fs.readdir("d"), [{ name: "c.txt", type: "file", isSymlink: false }]);
const stat = await client.fs.stat("d/c.txt");
assert.equal(stat.size, 7);
assert.ok(Math.abs(stat.mtime - Date.now()) < 600_000);
await client.fs.remove("d", true);
assert.match((await client.fs.readTextFile("d/c.txt").catch((error) => error)).message, /not found/);
assert.deepEqual(await client.ports.getAll(), []);
console.log("all passed");
process.exit(0);
