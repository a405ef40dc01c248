//! The one engine: how components are compiled and where their instances live.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use crate::capability::limits::Limits;
use crate::error::{Error, code};

/// How often guest code is interrupted to look at its clock.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How many ticks the clock goes on after the last call has ended: calls come in rows, and waking its thread for each
/// of them costs more than the call.
const IDLE_TICKS: u32 = 20;

/// The most core instances of one component.
const CORE_INSTANCES: u32 = 64;

/// What both sides of a `.cwasm` file must agree on. Everything that changes the code is here.
fn code_settings(target: Option<&str>) -> Result<Config, Error> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .epoch_interruption(true)
        .concurrency_support(false)
        .memory_init_cow(true)
        .wasm_memory64(false)
        // Threads, garbage collection, exceptions and stack switching are not even built in: see Cargo.toml.
        .wasm_wide_arithmetic(false)
        .wasm_relaxed_simd(false)
        // A fault in a stranger's code should say where, and cost nothing until then.
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16))
        // The size of a pool's slots is compiled into the code.
        .memory_reservation(Limits::ceiling().memory as u64)
        .memory_may_move(false)
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20);
    if let Some(target) = target {
        config.target(target).map_err(|error| broken(&error))?;
    }
    Ok(config)
}

/// An engine that only compiles, for any processor of a target: what ahead-of-time artefacts are made with.
pub(crate) fn compiler(target: &str) -> Result<Engine, Error> {
    Engine::new(&code_settings(Some(target))?).map_err(|error| broken(&error))
}

/// An engine that only compiles, for the processor of this machine: its code fits [`engine`].
pub(crate) fn compiler_here() -> Result<Engine, Error> {
    Engine::new(&code_settings(None)?).map_err(|error| broken(&error))
}

/// An engine that runs components.
pub(crate) fn engine(calls: u32) -> Result<Engine, Error> {
    let ceiling = Limits::ceiling();
    let mut pool = PoolingAllocationConfig::new();
    // A stack costs a system call when the pool is made, so a short-lived program asks for few.
    pool.total_component_instances(calls)
        // Only counted, so that many of them cost nothing: a component in Python is some thirty modules.
        .total_core_instances(calls * CORE_INSTANCES)
        .total_memories(calls * 2)
        .total_tables(calls * 4)
        .total_stacks(calls)
        .max_memory_size(ceiling.memory)
        .table_elements(ceiling.table_elements)
        .max_component_instance_size(1 << 20)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(4)
        .max_tables_per_component(16)
        .max_unused_warm_slots(16);
    // Keeping pages without asking the kernel which ones changed costs twelve times what it saves.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(2 << 20).table_keep_resident(64 << 10).pagemap_scan(Enabled::Auto);
    }
    let mut config = code_settings(None)?;
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    // A pool reserves address space. Where there is little (a container's or a shell's limit), instances are made one
    // by one: slower, and the same otherwise.
    Engine::new(&config).or_else(|_| Engine::new(&code_settings(None)?).map_err(|error| broken(&error)))
}

fn broken(error: &wasmtime::Error) -> Error {
    Error::new(code::INTERNAL, "runtime.start", format!("the WebAssembly engine did not start: {error:#}"))
}

/// Advances the engine's epoch while any call is under way, and sleeps otherwise.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    calls: AtomicUsize,
    /// The thread sleeps until it is woken.
    parked: AtomicBool,
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            calls: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            ended: Mutex::new(false),
            wake: Condvar::new(),
        });
        let (engine, theirs) = (engine.weak(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("pcoder-epoch".into())
            .spawn(move || tick(&engine, &theirs))
            .map_err(|error| Error::io("runtime.start", "the clock's thread", &error))?;
        Ok(Self { shared })
    }

    /// Keeps the clock going until it is dropped.
    pub(crate) fn call(&self) -> Ticking<'_> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            // Under the lock, or the thread could miss it between looking and sleeping.
            drop(self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner));
            self.shared.wake.notify_one();
        }
        Ticking(&self.shared)
    }
}

fn tick(engine: &EngineWeak, shared: &Shared) {
    let mut ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
    let mut idle = 0;
    while !*ended {
        if idle < IDLE_TICKS {
            ended = shared.wake.wait_timeout(ended, TICK).unwrap_or_else(PoisonError::into_inner).0;
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        } else {
            shared.parked.store(true, Ordering::SeqCst);
            // A call that came before it could see the flag is seen here; one that comes later sees the flag.
            if shared.calls.load(Ordering::SeqCst) == 0 {
                ended = shared.wake.wait(ended).unwrap_or_else(PoisonError::into_inner);
            }
            shared.parked.store(false, Ordering::SeqCst);
        }
        idle = if shared.calls.load(Ordering::SeqCst) == 0 { idle.saturating_add(1) } else { 0 };
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
    }
}

pub(crate) struct Ticking<'a>(&'a Shared);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}
