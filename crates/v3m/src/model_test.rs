//! The property that every driver has: whatever is done to it, in whatever order, it does what the table says.
//!
//! Random sequences of calls, of deaths of the calling process (the driver is dropped and opened again) and of VMs killed
//! from outside run against the driver and against a model that is nothing but [`State::allows`]. After every step each
//! VM's status is what the model says, and the list says the same as the statuses. A failing sequence is shrunk to its
//! core by proptest.

use crate::{Action, Driver, Error, Result, State, Status, Verdict};
use api::{MiB, Name};
use async_trait::async_trait;
use profile::Vm;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::time::Duration;

/// A driver under test and a place of its own for it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The driver on this subject's place, as a new process opens it.
    fn open(&self) -> Result<Box<dyn Driver>>;

    /// A VM that runs until it is stopped.
    fn vm(&self, name: &Name) -> Vm;

    /// Ends a live VM from outside, as `kill -9` of its process does, and returns when it is gone.
    async fn kill(&self, driver: &dyn Driver, status: &Status);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Define {
        vm: usize,
        otherwise: bool,
    },
    Act {
        vm: usize,
        action: Action,
    },
    StopWithGrace {
        vm: usize,
    },
    Kill {
        vm: usize,
    },
    /// The VM is killed while the action is on its way, `after` so many microseconds.
    KillDuring {
        vm: usize,
        action: Action,
        after: u64,
    },
    Reopen,
}

const NAMES: [&str; 3] = ["b", "a", "c-1"];

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let vm = || 0..NAMES.len();
    let act = |action| vm().prop_map(move |vm| Step::Act { vm, action });
    let step = prop_oneof![
        3 => (vm(), prop::bool::weighted(0.2))
            .prop_map(|(vm, otherwise)| Step::Define { vm, otherwise }),
        4 => act(Action::Start),
        2 => act(Action::Stop),
        1 => vm().prop_map(|vm| Step::StopWithGrace { vm }),
        2 => act(Action::Pause),
        2 => act(Action::Resume),
        1 => act(Action::Reboot),
        1 => act(Action::Undefine),
        1 => vm().prop_map(|vm| Step::Kill { vm }),
        2 => (vm(), prop::sample::select(Action::ALL.to_vec()), 0..30_000_u64)
            .prop_map(|(vm, action, after)| Step::KillDuring { vm, action, after }),
        3 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..=most)
}

/// What should be, of one VM.
#[derive(Clone, Copy)]
struct Model {
    state: State,
    otherwise: bool,
}

/// Runs `cases` sequences of at most `length` steps, each on a subject of its own. Panics, as a test does, with the
/// shortest sequence found that goes wrong.
pub fn run<S: Subject>(make: impl Fn() -> S, cases: u32, length: usize) {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => panic!("no runtime: {e}"),
    };
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: 150,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&steps(length), |steps| {
        let subject = make();
        let result = runtime.block_on(sequence(&subject, &steps));
        let cleaned = runtime.block_on(clean(&subject));
        result.and(cleaned)
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

async fn sequence(
    subject: &impl Subject,
    steps: &[Step],
) -> std::result::Result<(), TestCaseError> {
    let mut model = [Model {
        state: State::Absent,
        otherwise: false,
    }; NAMES.len()];
    let names = names();
    let mut driver = open(subject)?;
    for (number, step) in steps.iter().enumerate() {
        let place = format!("step {number}, {step:?}");
        match *step {
            Step::Define { vm, otherwise } => {
                let result = driver
                    .define(&definition(subject, &names[vm], otherwise))
                    .await;
                if model[vm].state == State::Absent {
                    model[vm].otherwise = otherwise;
                }
                if model[vm].otherwise == otherwise {
                    expect(&mut model[vm], Action::Define, result, &place)?;
                } else {
                    prop_assert!(
                        matches!(result, Err(Error::DefinedOtherwise { .. })),
                        "{place}: {result:?}"
                    );
                }
            }
            Step::Act { vm, action } => {
                let result = act(&*driver, &names[vm], action, Duration::ZERO).await;
                expect(&mut model[vm], action, result, &place)?;
            }
            Step::StopWithGrace { vm } => {
                let grace = Duration::from_millis(50);
                let result = act(&*driver, &names[vm], Action::Stop, grace).await;
                expect(&mut model[vm], Action::Stop, result, &place)?;
            }
            Step::Kill { vm } => {
                if model[vm].state.is_live() {
                    let status = driver.status(&names[vm]).await.map_err(fail(&place))?;
                    subject.kill(&*driver, &status).await;
                    model[vm].state = State::Crashed;
                }
            }
            Step::KillDuring { vm, action, after } => {
                kill_during(subject, &*driver, &mut model[vm], &names[vm], action, after).await?;
            }
            Step::Reopen => {
                drop(driver);
                driver = open(subject)?;
            }
        }
        agree(&*driver, &names, &model, &place).await?;
    }
    Ok(())
}

/// An action and the death of its VM race. Whichever is first, the action ends, and the VM is then what it was, what the
/// action makes of it, or crashed; from there the table holds again. A VM that does not live has nothing to kill: then
/// the action is as any other.
async fn kill_during(
    subject: &impl Subject,
    driver: &dyn Driver,
    model: &mut Model,
    name: &Name,
    action: Action,
    after: u64,
) -> std::result::Result<(), TestCaseError> {
    let place = format!("killed during {action:?}");
    let before = model.state;
    if !before.is_live() || action == Action::Define {
        return Ok(());
    }
    let status = driver.status(name).await.map_err(fail(&place))?;
    let kill = async {
        tokio::time::sleep(Duration::from_micros(after)).await;
        subject.kill(driver, &status).await;
    };
    let (result, ()) = tokio::join!(act(driver, name, action, Duration::ZERO), kill);
    let now = driver.status(name).await.map_err(fail(&place))?.state;
    let possible = match before.allows(action) {
        Verdict::Leads(next) => {
            [State::Crashed, next].contains(&now) || (now == before && result.is_err())
        }
        // A start that came after the death has started it anew.
        Verdict::Already => [State::Crashed, State::Running, before].contains(&now),
        // Refused while it lived; or done, when it came after the death.
        Verdict::Refused => [State::Crashed, State::Running, State::Absent].contains(&now),
    };
    prop_assert!(
        possible,
        "{place} while {before}: now {now}, and the action said {result:?}"
    );
    model.state = now;
    Ok(())
}

/// Status and list say what the model says, and the same as each other.
async fn agree(
    driver: &dyn Driver,
    names: &[Name],
    model: &[Model],
    place: &str,
) -> std::result::Result<(), TestCaseError> {
    let mut statuses = Vec::new();
    for (name, model) in names.iter().zip(model) {
        let status = driver.status(name).await.map_err(fail(place))?;
        prop_assert_eq!(&status.name, name, "after {}", place);
        prop_assert_eq!(
            status.state,
            model.state,
            "status of {} after {}: {:?}",
            name,
            place,
            status.reason
        );
        if status.state == State::Crashed {
            prop_assert!(status.reason.is_some(), "a crash without reason: {place}");
        }
        if status.state != State::Absent {
            statuses.push(status);
        }
    }
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    let list = driver.list().await.map_err(fail(place))?;
    prop_assert_eq!(list, statuses, "list and status after {}", place);
    Ok(())
}

fn expect(
    model: &mut Model,
    action: Action,
    result: Result<()>,
    place: &str,
) -> std::result::Result<(), TestCaseError> {
    let before = model.state;
    match before.allows(action) {
        Verdict::Leads(next) => {
            prop_assert!(result.is_ok(), "{place} while {before}: {result:?}");
            model.state = next;
        }
        Verdict::Already => prop_assert!(result.is_ok(), "{place} while {before}: {result:?}"),
        Verdict::Refused if before == State::Absent => prop_assert!(
            matches!(result, Err(Error::NoSuchVm(_))),
            "{place} while {before}: {result:?}"
        ),
        Verdict::Refused => prop_assert!(
            matches!(&result, Err(Error::WrongState { action: word, state, .. })
                if *word == action.word() && *state == before),
            "{place} while {before}: {result:?}"
        ),
    }
    Ok(())
}

async fn act(driver: &dyn Driver, name: &Name, action: Action, grace: Duration) -> Result<()> {
    match action {
        Action::Define => Ok(()),
        Action::Start => driver.start(name).await,
        Action::Stop => driver.stop(name, grace).await.map(drop),
        Action::Pause => driver.pause(name).await,
        Action::Resume => driver.resume(name).await,
        Action::Reboot => driver.reboot(name, grace).await,
        Action::Undefine => driver.undefine(name).await,
    }
}

/// However the sequence ended: nothing is left, and that is itself a property.
async fn clean(subject: &impl Subject) -> std::result::Result<(), TestCaseError> {
    let driver = open(subject)?;
    for status in driver.list().await.map_err(fail("cleaning up"))? {
        let stopped = driver.stop(&status.name, Duration::ZERO).await;
        stopped.map_err(fail("cleaning up"))?;
        let gone = driver.undefine(&status.name).await;
        gone.map_err(fail("cleaning up"))?;
    }
    let left = driver.list().await.map_err(fail("cleaning up"))?;
    prop_assert!(left.is_empty(), "left after cleaning up: {left:?}");
    Ok(())
}

fn names() -> Vec<Name> {
    NAMES.iter().filter_map(|n| Name::new(n).ok()).collect()
}

fn definition(subject: &impl Subject, name: &Name, otherwise: bool) -> Vm {
    let mut vm = subject.vm(name);
    if otherwise {
        vm.memory = MiB(vm.memory.0 + 1);
    }
    vm
}

fn open(subject: &impl Subject) -> std::result::Result<Box<dyn Driver>, TestCaseError> {
    subject.open().map_err(fail("opening the driver"))
}

fn fail(place: &str) -> impl Fn(Error) -> TestCaseError {
    move |e| TestCaseError::fail(format!("{place}: {e:?}"))
}
