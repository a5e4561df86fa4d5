//! `test`: the packages' own tests on their nodes, then HPCC over all compute nodes through Slurm and MPI.

use super::exec::{cancel_on_interrupt, unstarted};
use crate::args::Test;
use crate::context::{Context, small_runtime};
use crate::engine::{Access, ClusterStatus};
use crate::exit::{Code, Failure};
use crate::hpcc;
use crate::table::{Cell, Table, Tone};
use anyhow::Result;
use api::{Name, Unit};
use profile::Role;
use remote::{Cancel, Options, Outcome, Ssh, Status};
use serde::Serialize;
use std::ffi::OsString;
use std::time::Duration;

/// One test on the nodes that answered the same.
#[derive(Debug, Serialize)]
struct Row {
    test: String,
    /// A node set.
    nodes: String,
    result: Outcomes,
    /// The test's own last words.
    detail: String,
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcomes {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    cluster: &'a Name,
    passed: bool,
    tests: &'a [Row],
    /// HPCC's figures, where it ran to its end.
    hpcc: Option<&'a hpcc::Report>,
}

pub fn run(context: &Context, args: &Test) -> Result<Code> {
    let head = context.head()?;
    let cluster = context.cluster(&head, args.cluster.cluster.as_ref())?;
    let runtime = small_runtime()?;
    let status = runtime.block_on(head.status(&cluster))?;
    let access = head.access(&cluster)?;
    let is_asked_for =
        |test: &str| args.only.is_empty() || args.only.iter().any(|only| only.as_str() == test);
    if let Some(unknown) = args
        .only
        .iter()
        .find(|only| only.as_str() != HPCC_TEST && !access.opkgs.contains(only))
    {
        let mut known: Vec<&str> = access.opkgs.iter().map(Name::as_str).collect();
        known.push(HPCC_TEST);
        let known = format!("its tests are {}", known.join(", "));
        return Err(Failure::new(
            Code::Usage,
            format!("cluster {cluster} has no test {unknown}"),
        )
        .hint(known)
        .into());
    }
    let shown = context.progress();
    let mut rows = Vec::new();
    let mut report = None;
    let interrupted = runtime.block_on(async {
        let cancel = cancel_on_interrupt();
        let options = Options {
            limit: Some(args.time_limit),
            ..Options::default()
        };
        let root = context.ssh(&access, Some(Name::new("root")?));
        for package in access
            .opkgs
            .iter()
            .filter(|package| is_asked_for(package.as_str()))
        {
            let stage = format!("test {package}");
            shown.progress.started(&stage, None, Unit::Items);
            let added = package_test(&root, &access, package.as_str(), &options, &cancel).await?;
            let failed = added.iter().any(|r| r.result == Outcomes::Failed);
            match failed {
                true => shown.progress.failed(&stage, ""),
                false => shown.progress.done(&stage, ""),
            }
            rows.extend(added);
        }
        if is_asked_for(HPCC_TEST) && !cancel.is_cancelled() {
            shown.progress.started("HPCC", None, Unit::Items);
            let user = context.ssh(&access, Some(access.user.clone()));
            let (added, found) =
                hpcc_test(&user, &access, &status, args.hpcc_size, &options, &cancel).await?;
            match added.iter().any(|r| r.result == Outcomes::Failed) {
                true => shown.progress.failed("HPCC", ""),
                false => shown.progress.done("HPCC", ""),
            }
            rows.extend(added);
            report = found;
        }
        Ok::<_, anyhow::Error>(cancel.is_cancelled())
    })?;
    shown.end();
    let passed = rows.iter().all(|r| r.result != Outcomes::Failed);
    let document = Document {
        cluster: &cluster,
        passed: passed && !interrupted,
        tests: &rows,
        hpcc: report.as_ref(),
    };
    context.result(&document, || table(&rows))?;
    if let Some(report) = report.as_ref().filter(|_| !context.json()) {
        crate::context::print(figures(report))?;
    }
    Ok(match (interrupted, passed) {
        (true, _) => Code::Of(130),
        (false, true) => Code::Ok,
        (false, false) => Code::Failed,
    })
}

/// Code 77 says "skipped", as in Automake's test protocol.
const SKIPPED: u8 = 77;

const PACKAGE_TEST: &str = r#"t=/usr/lib/oscarv/packages/$1/testing/test
[ -e "$t" ] || { echo "the package has no test"; exit 77; }
exec "$t""#;

async fn package_test(
    ssh: &Ssh,
    access: &Access,
    package: &str,
    options: &Options,
    cancel: &Cancel,
) -> Result<Vec<Row>> {
    let argv = ["sh", "-c", PACKAGE_TEST, "sh", package].map(OsString::from);
    let nodes: Vec<Name> = access.nodes.iter().map(|n| n.name.clone()).collect();
    let outcomes = remote::exec(ssh, &nodes, &argv, options, cancel, |_| {}).await;
    unstarted(&outcomes)?;
    let took = outcomes.iter().map(|o| o.took).max().unwrap_or_default();
    let rows = remote::fold(&outcomes).into_iter().map(|answer| Row {
        test: package.to_owned(),
        nodes: answer.nodes,
        result: result(answer.status),
        detail: detail(answer.status, answer.stdout, answer.stderr, &access.cluster),
        seconds: seconds(took),
    });
    Ok(rows.collect())
}

fn result(status: &Status) -> Outcomes {
    match status {
        Status::Exited(0) => Outcomes::Passed,
        Status::Exited(SKIPPED) => Outcomes::Skipped,
        _ => Outcomes::Failed,
    }
}

/// The last line that was said, and how it ended where that is not plain.
fn detail(status: &Status, stdout: &[u8], stderr: &[u8], cluster: &Name) -> String {
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines()
            .rfind(|l| !l.trim().is_empty())
            .map(|l| l.trim().to_owned())
    };
    let said = match status {
        Status::Exited(0 | SKIPPED) => last(stdout),
        _ => last(stderr).or_else(|| last(stdout)),
    };
    let ended = match status {
        Status::Exited(SKIPPED) => None,
        status => super::exec::ending(status, cluster),
    };
    [said, ended]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the HPCC run is called among the tests.
const HPCC_TEST: &str = "hpcc";

/// In a directory of its own in the shared home; `$1` is the input, `$2` nodes, `$3` tasks.
const HPCC: &str = r#"set -eu
for program in srun hpcc; do
  command -v $program >/dev/null || { echo "$program is not in the image: add package hpcc and OPKG slurm to the cluster file"; exit 77; }
done
d=$(mktemp -d "$HOME/.oscarv-hpcc-XXXXXX")
trap '[ $? != 0 ] || rm -rf "$d"' EXIT
trap 'rm -rf "$d"; exit 143' TERM
cd "$d"
printf %s "$1" > hpccinf.txt
srun --mpi=pmix --job-name=oscarv-test -N "$2" -n "$3" hpcc >&2 || { echo "srun ended with $?; its output is in $d on the head" >&2; exit 1; }
cat hpccoutf.txt"#;

async fn hpcc_test(
    ssh: &Ssh,
    access: &Access,
    status: &ClusterStatus,
    size: u32,
    options: &Options,
    cancel: &Cancel,
) -> Result<(Vec<Row>, Option<hpcc::Report>)> {
    let compute = || status.nodes.iter().filter(|n| n.role == Role::Compute);
    let nodes = compute().count();
    let names = remote::fold_names(compute().map(|n| &n.name));
    let row = |result, detail: String, took: Duration| Row {
        test: HPCC_TEST.to_owned(),
        nodes: names.clone(),
        result,
        detail,
        seconds: seconds(took),
    };
    if nodes == 0 {
        let detail = "the cluster has no compute nodes".to_owned();
        return Ok((vec![row(Outcomes::Skipped, detail, Duration::ZERO)], None));
    }
    let tasks: u32 = compute().map(|n| u32::from(n.cpus)).sum();
    let argv = [
        "sh".to_owned(),
        "-c".to_owned(),
        HPCC.to_owned(),
        "sh".to_owned(),
        hpcc::input(size, tasks),
        nodes.to_string(),
        tasks.to_string(),
    ]
    .map(OsString::from);
    let on = std::slice::from_ref(&access.head);
    let outcomes = remote::exec(ssh, on, &argv, options, cancel, |_| {}).await;
    unstarted(&outcomes)?;
    let Some(Outcome {
        status,
        stdout,
        stderr,
        took,
        ..
    }) = outcomes.into_iter().next()
    else {
        return Err(Failure::new(Code::Failed, "HPCC gave no answer").into());
    };
    if result(&status) != Outcomes::Passed {
        let detail = detail(&status, &stdout, &stderr, &access.cluster);
        return Ok((vec![row(result(&status), detail, took)], None));
    }
    let report = match hpcc::parse(&String::from_utf8_lossy(&stdout)) {
        Ok(report) => report,
        Err(bad) => return Ok((vec![row(Outcomes::Failed, bad.to_string(), took)], None)),
    };
    let passed = |ok| {
        if ok {
            Outcomes::Passed
        } else {
            Outcomes::Failed
        }
    };
    let rows = report.checks.iter().map(|check| Row {
        test: format!("{HPCC_TEST} {}", check.name),
        ..row(passed(check.passed), check.detail.clone(), took)
    });
    Ok((rows.collect(), Some(report)))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["TEST", "NODES", "RESULT", "DETAIL"]);
    for row in rows {
        let (word, tone) = match row.result {
            Outcomes::Passed => ("passed", Tone::Good),
            Outcomes::Failed => ("FAILED", Tone::Bad),
            Outcomes::Skipped => ("skipped", Tone::Warning),
        };
        table.row(vec![
            Cell::from(&row.test),
            Cell::from(&row.nodes),
            Cell::from(word).tone(tone),
            Cell::from(&row.detail),
        ]);
    }
    table
}

fn figures(report: &hpcc::Report) -> String {
    format!(
        "HPCC on {} tasks, N = {}: HPL {:.3} Gflop/s, STREAM triad {:.3} GB/s, PTRANS {:.3} GB/s, \
         RandomAccess {:.5} GUP/s, FFT {:.3} Gflop/s, ring latency {:.1} us, ring bandwidth {:.3} GB/s\n",
        report.tasks,
        report.n,
        report.hpl_gflops,
        report.star_stream_triad_gb_per_s,
        report.ptrans_gb_per_s,
        report.mpi_random_access_gups,
        report.mpi_fft_gflops,
        report.latency_us,
        report.bandwidth_gb_per_s,
    )
}

fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_test() {
        let cluster = Name::new("mpi").unwrap();
        let detail = |code, out: &str, err: &str| {
            detail(
                &Status::Exited(code),
                out.as_bytes(),
                err.as_bytes(),
                &cluster,
            )
        };
        assert_eq!(detail(0, "a\nb\n\n", "noise"), "b");
        assert_eq!(detail(1, "", "no srun\n"), "no srun; exit code 1");
        assert_eq!(detail(77, "no hpcc\n", ""), "no hpcc");
        assert_eq!(result(&Status::Exited(77)), Outcomes::Skipped);
        assert_eq!(result(&Status::TimedOut), Outcomes::Failed);
    }
}
