// An agent: which command line starts it, and what its answers mean. It runs nothing itself.
//
// The names are those of `wit/agent.wit` in camelCase. An option is a value or `undefined`, a variant is
// `{ tag, val }`, an error is thrown, and what is printed with `console` is a line of the plugin's log.
import { log } from "pcoder:plugin/log@0.1.0";

export const agent = {
  info() {
    return {
      name: "hello",
      title: "Hello",
      description: "Says hello",
      // The names of engines in pcoder's engine store. This one needs no more than `printf`.
      engines: [],
      acpEngines: [],
      environment: ["HELLO_*"],
      // Those that choose an account or a service. The host leaves them out where it chooses itself.
      accountEnvironment: ["HELLO_KEY", "HELLO_URL"],
      apiKeyVariable: "HELLO_KEY",
      features: ["sessions"],
    };
  },

  command(launch) {
    log("info", `hello with ${launch.args.length} arguments`);
    return hello(launch, launch.args);
  },

  toProcessSpec(input) {
    console.log("an unattended session");
    return {
      command: hello(input.launch, [input.prompt]),
      restart: { tag: "never" },
      options: [],
    };
  },

  acp() {
    throw unsupported("agent.acp", "it does not speak the Agent Client Protocol");
  },

  authStatusCommand(launch) {
    return hello(launch, ["nobody needs to log in"]);
  },

  authStatus(output) {
    if (output.status.tag !== "exited" || output.status.val !== 0) {
      throw error("process", "agent.auth-status", "it did not answer");
    }
    const text = new TextDecoder().decode(output.stdout);
    return { loggedIn: text.startsWith("hello"), method: "none", account: undefined };
  },

  loginCommand() {
    throw unsupported("agent.login-command", "nobody needs to log in");
  },

  logoutCommand() {
    throw unsupported("agent.logout-command", "nobody needs to log in");
  },
};

// No shell sees a program's arguments, so nothing needs quoting.
function hello(launch, words) {
  return {
    command: { tag: "argv", val: { program: "printf", args: ["hello %s\\n", words.join(" ")] } },
    cwd: launch.cwd,
    env: launch.env,
    pathEntries: [],
    name: "hello",
  };
}

function unsupported(operation, message) {
  return error("unsupported", operation, message);
}

// The codes are listed in `wit/types.wit`. A message is one line for people, and never holds a secret.
function error(code, operation, message) {
  return { code, message, operation };
}
