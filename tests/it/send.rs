//! Calls can be spawned on a runtime with many threads: checked by the compiler.

use pcoder_runtime::call::CallContext;
use pcoder_runtime::contract::agent::Launch;
use pcoder_runtime::contract::provider::BootOptions;
use pcoder_runtime::contract::{CommandSpec, ProcessSpec};
use pcoder_runtime::{Error, Plugin};

fn spawned<T>(future: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> + Send + 'static {
    future
}

#[expect(dead_code, reason = "it is there to be compiled")]
fn every_kind(plugin: Plugin, options: BootOptions, command: CommandSpec, process: ProcessSpec, launch: Launch) {
    let context = CallContext::default;
    let (one, two, three, four, five) = (plugin.clone(), plugin.clone(), plugin.clone(), plugin.clone(), plugin);
    drop(spawned(async move { one.provider()?.boot(context(), &options).await }));
    drop(spawned(async move {
        let stdio = crate::streams::nothing();
        two.provider()?.exec(context(), "id", &command, stdio).await
    }));
    drop(spawned(async move { three.process_manager()?.start(context(), &process).await }));
    drop(spawned(async move { four.agent()?.command(context(), &launch).await }));
    drop(spawned(async move {
        five.credentials()?.install(context(), "profile").await?;
        Ok::<(), Error>(())
    }));
}
