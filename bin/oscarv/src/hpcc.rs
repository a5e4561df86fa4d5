//! HPC Challenge (https://hpcchallenge.org): its input file, its report, and whether the report is good.
//!
//! HPCC reads `hpccinf.txt` and writes `hpccoutf.txt` in its working directory. The report ends with a section of
//! `key=value` lines; whether residuals passed is only in the text before it, in the words of each benchmark.

use serde::Serialize;
use std::collections::BTreeMap;

/// What the report must hold for us to say anything about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    #[error("HPCC's report has no summary: it did not come to its end")]
    NoSummary,
    #[error("HPCC's summary has no number {0}")]
    Missing(&'static str),
}

/// One check of a result against the benchmark's own bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    /// The benchmark's own words.
    pub detail: String,
}

/// The report in figures; units are HPCC's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// MPI tasks.
    pub tasks: u32,
    /// Order of HPL's matrix.
    pub n: u32,
    pub hpl_gflops: f64,
    pub star_dgemm_gflops: f64,
    pub ptrans_gb_per_s: f64,
    pub mpi_random_access_gups: f64,
    pub star_stream_triad_gb_per_s: f64,
    pub mpi_fft_gflops: f64,
    pub latency_us: f64,
    pub bandwidth_gb_per_s: f64,
    pub checks: Vec<Check>,
}

impl Report {
    #[cfg(test)]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// The input for so many tasks: one run of HPL of order `n` on a grid of 1 × tasks, and no more of PTRANS than that.
/// The form is that of HPL's input (lines are read by their number), then of HPCC's own lines.
pub fn input(n: u32, tasks: u32) -> String {
    format!(
        "\
HPLinpack benchmark input file
Innovative Computing Laboratory, University of Tennessee
HPL.out      output file name (if any)
8            device out (6=stdout,7=stderr,file)
1            # of problems sizes (N)
{n}          Ns
1            # of NBs
64           NBs
0            PMAP process mapping (0=Row-,1=Column-major)
1            # of process grids (P x Q)
1            Ps
{tasks}      Qs
16.0         threshold
1            # of panel fact
2            PFACTs (0=left, 1=Crout, 2=Right)
1            # of recursive stopping criterium
4            NBMINs (>= 1)
1            # of panels in recursion
2            NDIVs
1            # of recursive panel fact.
1            RFACTs (0=left, 1=Crout, 2=Right)
1            # of broadcast
1            BCASTs (0=1rg,1=1rM,2=2rg,3=2rM,4=Lng,5=LnM)
1            # of lookahead depth
1            DEPTHs (>=0)
2            SWAP (0=bin-exch,1=long,2=mix)
64           swapping threshold
0            L1 in (0=transposed,1=no-transposed) form
0            U  in (0=transposed,1=no-transposed) form
1            Equilibration (0=no,1=yes)
8            memory alignment in double (> 0)
##### This line (no. 32) is ignored (it serves as a separator). ######
0            Number of additional problem sizes for PTRANS
1200         values of N
0            number of additional blocking sizes for PTRANS
64           values of NB
"
    )
}

/// Reads a report.
pub fn parse(text: &str) -> Result<Report, BadReport> {
    let (before, summary) = text
        .split_once("Begin of Summary section.")
        .ok_or(BadReport::NoSummary)?;
    let (summary, _) = summary
        .split_once("End of Summary section.")
        .ok_or(BadReport::NoSummary)?;
    let values: BTreeMap<&str, &str> = summary
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .collect();
    let number = |key: &'static str| -> Result<f64, BadReport> {
        let value = values.get(key).and_then(|v| v.parse().ok());
        value.ok_or(BadReport::Missing(key))
    };
    let success = number("Success")?;
    let mut checks = vec![
        Check {
            name: "end",
            passed: success == 1.0,
            // HPCC's own line, as it stands in the report.
            detail: format!("Success={}", values.get("Success").unwrap_or(&"")),
        },
        hpl(before),
        ptrans(before, number("PTRANS_residual")?),
    ];
    for (name, errors, fraction) in [
        (
            "MPIRandomAccess",
            "MPIRandomAccess_Errors",
            "MPIRandomAccess_ErrorsFraction",
        ),
        (
            "MPIRandomAccess LCG",
            "MPIRandomAccess_LCG_Errors",
            "MPIRandomAccess_LCG_ErrorsFraction",
        ),
    ] {
        // The benchmark's rule: up to 1 % of the updates may be lost.
        let fraction = number(fraction)?;
        checks.push(Check {
            name,
            passed: (0.0..=0.01).contains(&fraction),
            detail: format!("{} errors", number(errors)?),
        });
    }
    checks.push(stream(before));
    let fft = number("MPIFFT_maxErr")?;
    checks.push(Check {
        name: "MPIFFT",
        // HPCC prints the error and sets no bound; a transform in double precision that is right stays far below.
        passed: (0.0..1e-10).contains(&fft),
        detail: format!("largest error {fft:e}"),
    });
    let whole = |value: f64| value as u32;
    Ok(Report {
        tasks: whole(number("CommWorldProcs")?),
        n: whole(number("HPL_N")?),
        hpl_gflops: number("HPL_Tflops")? * 1000.0,
        star_dgemm_gflops: number("StarDGEMM_Gflops")?,
        ptrans_gb_per_s: number("PTRANS_GBs")?,
        mpi_random_access_gups: number("MPIRandomAccess_GUPs")?,
        star_stream_triad_gb_per_s: number("StarSTREAM_Triad")?,
        mpi_fft_gflops: number("MPIFFT_Gflops")?,
        latency_us: number("RandomlyOrderedRingLatency_usec")?,
        bandwidth_gb_per_s: number("RandomlyOrderedRingBandwidth_GBytes")?,
        checks,
    })
}

/// `||Ax-b||_oo/(eps*…*N)=  0.0085776 ...... PASSED`
fn hpl(text: &str) -> Check {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("||Ax-b||") && line.contains("......"))
        .collect();
    let detail = match lines.first() {
        Some(line) => line.rsplit(")=").next().unwrap_or(line).trim().to_owned(),
        None => "no residual was reported".to_owned(),
    };
    Check {
        name: "HPL",
        passed: !lines.is_empty() && lines.iter().all(|line| line.ends_with("PASSED")),
        detail: format!("residual {}", detail.replace(" ...... ", ": ")),
    }
}

/// `    0 tests completed and failed residual checks.`
fn ptrans(text: &str, residual: f64) -> Check {
    let mut text = text
        .lines()
        .skip_while(|line| !line.contains("Begin of PTRANS"));
    let mut count = |what: &str| -> Option<u32> {
        let line = text.find(|line| line.contains(what))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let passed = count("tests completed and passed residual checks");
    let failed = count("tests completed and failed residual checks");
    Check {
        name: "PTRANS",
        passed: passed.is_some_and(|n| n > 0) && failed == Some(0),
        detail: format!(
            "residual {residual:e}: {} passed, {} failed",
            passed.unwrap_or(0),
            failed.map_or("?".to_owned(), |n| n.to_string())
        ),
    }
}

/// `Solution Validates: avg error less than …`, or `Failed Validation on …`, by the first task.
fn stream(text: &str) -> Check {
    let mut lines = text.lines().filter(|line| {
        line.starts_with("Solution Validates") || line.contains("Failed Validation")
    });
    let good = |line: &&str| line.starts_with("Solution Validates");
    let first = lines.next();
    Check {
        name: "STREAM",
        passed: first.as_ref().is_some_and(good) && lines.all(|line| good(&line)),
        detail: first.unwrap_or("no validation was reported").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a real run: `mpirun -np 2 hpcc` (Debian's 1.5.0) with N = 400.
    const REAL: &str = include_str!("../tests/golden/hpccoutf.txt");

    #[test]
    fn a_real_report_passes() {
        let report = parse(REAL).unwrap();
        assert!(report.passed(), "{:#?}", report.checks);
        assert_eq!((report.tasks, report.n), (2, 400));
        assert!((report.hpl_gflops - 1.67292).abs() < 1e-9);
        assert_eq!(report.star_stream_triad_gb_per_s, 41.5628);
        assert_eq!(report.latency_us, 0.302149);
        let details: Vec<_> = report
            .checks
            .iter()
            .map(|c| (c.name, c.detail.as_str()))
            .collect();
        assert_eq!(
            details,
            [
                ("end", "Success=1"),
                ("HPL", "residual 0.0085776: PASSED"),
                ("PTRANS", "residual 0e0: 5 passed, 0 failed"),
                ("MPIRandomAccess", "0 errors"),
                ("MPIRandomAccess LCG", "0 errors"),
                (
                    "STREAM",
                    "Solution Validates: avg error less than 1.000000e-13 on all three arrays"
                ),
                ("MPIFFT", "largest error 1.04738e-15"),
            ]
        );
    }

    fn failing(text: &str) -> Vec<&'static str> {
        let report = parse(text).unwrap();
        let failed = report.checks.iter().filter(|c| !c.passed);
        failed.map(|c| c.name).collect()
    }

    #[test]
    fn each_residual_that_fails_is_seen() {
        assert_eq!(
            failing(&REAL.replace("...... PASSED", "...... FAILED")),
            ["HPL"]
        );
        assert_eq!(
            failing(&REAL.replace(
                "    0 tests completed and failed",
                "    1 tests completed and failed"
            )),
            ["PTRANS"]
        );
        assert_eq!(
            failing(&REAL.replace(
                "MPIRandomAccess_ErrorsFraction=0",
                "MPIRandomAccess_ErrorsFraction=0.2"
            )),
            ["MPIRandomAccess"]
        );
        assert_eq!(
            failing(&REAL.replace("Solution Validates", "Failed Validation on array a")),
            ["STREAM"]
        );
        assert_eq!(
            failing(&REAL.replace("MPIFFT_maxErr=1.04738e-15", "MPIFFT_maxErr=nan")),
            ["MPIFFT"]
        );
        assert_eq!(failing(&REAL.replace("Success=1", "Success=0")), ["end"]);
    }

    #[test]
    fn a_report_that_ends_early_is_no_report() {
        assert_eq!(parse(""), Err(BadReport::NoSummary));
        let cut = REAL.find("HPL_Tflops").unwrap();
        assert_eq!(parse(&REAL[..cut]), Err(BadReport::NoSummary));
        assert_eq!(
            parse(&REAL.replace("HPL_Tflops", "x")),
            Err(BadReport::Missing("HPL_Tflops"))
        );
    }

    #[test]
    fn the_input_has_its_numbers_on_their_lines() {
        let input = input(600, 3);
        let line = |n: usize| {
            input
                .lines()
                .nth(n - 1)
                .unwrap()
                .split_whitespace()
                .next()
                .unwrap()
        };
        assert_eq!(
            (line(6), line(8), line(11), line(12)),
            ("600", "64", "1", "3")
        );
        assert!(input.lines().nth(31).unwrap().contains("no. 32"));
    }
}
