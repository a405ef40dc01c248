// The official SDK against the fake: every step is checked, and the last line says that all of them passed.
// Run with the folder of the SDK's installation as the working folder; the fake is in CSB_API_KEY and CSB_BASE_URL.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const { CodeSandbox, VMTier } = await import(pathToFileURL(require.resolve("@codesandbox/sdk")));
const sdk = new CodeSandbox();
const step = (name) => console.log(`step ${name}`);

step("create");
const box = await sdk.sandboxes.create({
  title: "t1",
  tags: ["one"],
  privacy: "private",
  vmTier: VMTier.Pico,
  hibernationTimeoutSeconds: 1800,
});
assert.equal(box.bootupType, "FORK");
let client = await box.connect();
assert.equal(client.workspacePath, "/project/workspace");
assert.equal(client.setup.status, "FINISHED");

step("exec");
assert.equal(await client.commands.run("echo ok"), "ok\r\n");
assert.equal((await client.commands.run("pwd")).trim(), "/project/workspace");
const failed = await client.commands
  .run("echo out; echo err >&2; exit 7", { cwd: "/tmp", env: { FOO: "it's" } })
  .catch((error) => error);
assert.equal(failed.exitCode, 7);
assert.match(failed.output, /out[^]*err/);
assert.equal((await client.commands.run("echo $FOO", { env: { FOO: "it's" } })).trim(), "it's");
assert.equal((await client.commands.run(["cd /tmp", "pwd"])).trim(), "/tmp");
assert.equal((await client.commands.run("tty | cut -c1-9")).trim(), "/dev/pts/");
assert.equal((await client.commands.run("stty size")).trim(), "24 128");

step("background");
const command = await client.commands.runBackground("read line; echo got $line; sleep 1000", { name: "waits" });
const all = await client.commands.getAll();
assert.ok(all.some((known) => known.name === "waits"));
await command.kill();

step("terminal");
const terminal = await client.terminals.create("bash");
let seen = "";
const answered = new Promise((resolve) => terminal.onOutput((out) => {
  seen += out;
  if (seen.includes("answer-42")) resolve();
}));
await terminal.open();
await terminal.write("echo answer-$((6*7))\r");
await answered;
await terminal.kill();

step("files");
const bytes = new Uint8Array([0, 1, 2, 255, 10, 13]);
await client.fs.writeFile("a.bin", bytes);
assert.deepEqual([...(await client.fs.readFile("a.bin"))], [...bytes]);
assert.equal((await client.commands.run("od -An -tx1 a.bin")).trim(), "00 01 02 ff 0a 0d");
await client.fs.writeTextFile("/tmp/shared.txt", "grüße");
assert.equal((await client.commands.run("cat /tmp/shared.txt")).trim(), "grüße");
await client.fs.mkdir("d/e", true);
await client.fs.copy("a.bin", "d/b.bin");
await client.fs.rename("d/b.bin", "d/c.bin");
assert.deepEqual(
  (await client.fs.readdir("d")).map(({ name, type }) => [name, type]).sort(),
  [["c.bin", "file"], ["e", "directory"]],
);
const stat = await client.fs.stat("d/c.bin");
assert.equal(stat.type, "file");
assert.equal(stat.size, bytes.length);
assert.ok(Math.abs(stat.mtime - Date.now()) < 600_000);
await client.fs.remove("d", true);
assert.equal((await client.fs.readFile("nope").catch((error) => error)).message, "2: No such file or directory");
await client.fs.batchWrite([{ path: "x/1.txt", content: "one" }, { path: "x/2.txt", content: "two" }]);
assert.equal(await client.fs.readTextFile("x/2.txt"), "two");
const download = await client.fs.download("x");
const archive = new Uint8Array(await (await fetch(download.downloadUrl)).arrayBuffer());
assert.deepEqual([...archive.slice(0, 2)], [0x50, 0x4b]);

step("watch");
const watcher = await client.fs.watch("x", { recursive: true });
const added = new Promise((resolve) => watcher.onEvent((event) => event.type === "add" && resolve(event)));
await client.fs.writeTextFile("x/3.txt", "three");
assert.deepEqual((await added).paths, ["/project/workspace/x/3.txt"]);
watcher.dispose();

step("ports");
const script = `require("http").createServer((q, r) => r.end("hello " + q.url)).listen(0, "127.0.0.1",
  function () { require("fs").writeFileSync("/tmp/port", String(this.address().port)) })`;
await client.fs.writeTextFile("server.cjs", script);
const server = await client.commands.runBackground("node server.cjs");
const opened = await new Promise((resolve) => client.ports.onDidPortOpen(resolve));
assert.equal(opened.port, Number(await client.fs.readTextFile("/tmp/port")));
assert.equal(opened.host, `https://${box.id}-${opened.port}.csb.app`);
assert.equal((await client.ports.waitForPort(opened.port)).port, opened.port);

step("tokens");
const token = await sdk.hosts.createToken(box.id, { expiresAt: new Date(Date.now() + 60_000) });
assert.ok(token.token.startsWith("prv_"));
assert.equal((await sdk.hosts.listTokens(box.id)).length, 1);
const { preview } = JSON.parse(process.env.FAKE_ADDRESSES ?? "{}");
console.log(`preview ${JSON.stringify({ url: client.hosts.getUrl(opened.port), token: token.token, preview })}`);
await sdk.hosts.revokeToken(box.id, token.tokenId);
assert.equal((await sdk.hosts.listTokens(box.id)).length, 0);
await sdk.hosts.revokeAllTokens(box.id);
const closed = new Promise((resolve) => client.ports.onDidPortClose(resolve));
await server.kill();
assert.equal(await closed, opened.port);

step("session");
const user = await box.connect({ id: "user1", permission: "write", env: { GREETING: "hi there" } });
assert.equal((await user.commands.run("echo $GREETING")).trim(), "hi there");
assert.match(user.workspacePath, /user1/);
user.dispose();

step("list");
const { sandboxes } = await sdk.sandboxes.list({ tags: ["one"] });
assert.deepEqual(sandboxes.map(({ id }) => id), [box.id]);
const running = await sdk.sandboxes.listRunning();
assert.ok(running.vms.some((vm) => vm.id === box.id && vm.specs.cpu === 1));
assert.equal((await sdk.sandboxes.get(box.id)).title, "t1");
await box.updateTier(VMTier.Nano);
await box.updateHibernationTimeout(600);

step("hibernate");
await client.commands.runBackground("sleep 1000");
const hibernated = new Promise((resolve) => client.onStateChange((state) => state === "HIBERNATED" && resolve()));
await sdk.sandboxes.hibernate(box.id);
await hibernated;
await client.reconnect();
assert.equal((await client.commands.run("echo again")).trim(), "again");
client.dispose();
await sdk.sandboxes.hibernate(box.id);
const resumed = await sdk.sandboxes.resume(box.id);
assert.equal(resumed.bootupType, "RESUME");
client = await resumed.connect();
assert.equal(await client.fs.readTextFile("x/2.txt"), "two");
assert.match(await client.commands.run("ps -e -o args"), /sleep 1000/);

step("fork");
const fork = await sdk.sandboxes.fork(box.id);
assert.equal(fork.bootupType, "FORK");
const forked = await fork.connect();
assert.equal(await forked.fs.readTextFile("x/1.txt"), "one");
await forked.fs.writeTextFile("x/1.txt", "mine");
assert.equal(await client.fs.readTextFile("x/1.txt"), "one");
forked.dispose();
await sdk.sandboxes.delete(fork.id);

step("shutdown");
client.dispose();
await sdk.sandboxes.shutdown(box.id);
const restarted = await sdk.sandboxes.resume(box.id);
assert.equal(restarted.bootupType, "CLEAN");
client = await restarted.connect();
assert.equal(client.setup.status, "IN_PROGRESS");
// The set-up waits for this file. (`setup.waitUntilComplete()` of 2.4.2 does not hear of progress; its steps do.)
const [setup] = client.setup.getSteps();
const output = new Promise((resolve) => setup.onOutput(resolve));
await setup.open();
await client.fs.writeTextFile("/tmp/go", "");
await setup.waitUntilComplete();
assert.equal(setup.status, "SUCCEEDED");
assert.equal((await output).trim(), "set up");
assert.equal(await client.fs.readTextFile("x/2.txt"), "two");
assert.doesNotMatch(await client.commands.run("ps -e -o args"), /sleep 1000/);
client.dispose();

step("delete");
await sdk.sandboxes.delete(box.id);
const gone = await sdk.sandboxes.get(box.id).catch((error) => error);
assert.match(gone.message, /Sandbox not found/);
console.log("all passed");
process.exit(0);
