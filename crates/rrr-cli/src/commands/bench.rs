//! `rrr bench`: the speed of a model on this machine.

use crate::Done;
use crate::args::{BenchArgs, Format, Globals};
use crate::term::Term;
use rrrnet::bench::{BenchOptions, BenchReport, Case, Until, bench};
use std::io::{self, Write};
use std::time::Duration;

pub fn run(args: &BenchArgs, globals: &Globals, term: &Term) -> anyhow::Result<Done> {
    let options = BenchOptions {
        batches: args.batch.clone(),
        precisions: args.precision.clone(),
        threads: globals.thread_count(),
        size: args.size,
        until: match args.rounds {
            Some(calls) => Until::Calls(calls),
            None => Until::Time(Duration::from_secs_f64(args.seconds)),
        },
        layers: args.layers,
    };
    let report = bench(&args.run, &options, &mut |precision, batch| {
        term.say(&format!("measuring {precision}, batch {batch}"));
    })?;
    let mut out = io::stdout().lock();
    match args.format {
        Format::Text => print(&mut out, &report)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(Done::Fully)
}

fn print(out: &mut impl Write, r: &BenchReport) -> io::Result<()> {
    let (machine, network, cold) = (&r.machine, &r.network, &r.cold_start);
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let threads = plural(machine.threads, "thread", "threads");
    let mut peaks = vec![("f32", machine.peak_gflops)];
    for case in &r.cases {
        if peaks.iter().all(|(precision, _)| *precision != case.precision) {
            peaks.push((&case.precision, case.peak_gflops));
        }
    }
    let peaks: Vec<_> = peaks.into_iter().map(|(precision, peak)| format!("{precision} {peak:.1}")).collect();
    writeln!(out, "machine     {cpu}, {}, {threads}, peak in GFLOP/s: {}", machine.isa, peaks.join(", "))?;
    writeln!(
        out,
        "network     {}, {:.2} M parameters, {:.3} G multiply-adds per {s}x{s} image",
        plural(network.branches, "branch", "branches"),
        1e-6 * network.params as f64,
        1e-9 * network.macs as f64,
        s = network.size,
    )?;
    writeln!(
        out,
        "cold start  {:.1} ms: opening the model {:.1}, loading its weights {:.1}, first call {:.1}",
        cold.total_ms, cold.open_ms, cold.load_ms, cold.first_call_ms
    )?;
    writeln!(
        out,
        "\nprecision  batch  calls   p50 ms   p95 ms   p99 ms  images/s  GFLOP/s  of peak  weights  activations  resident"
    )?;
    for c in &r.cases {
        let l = &c.latency;
        writeln!(
            out,
            "{:<9}  {:>5}  {:>5}  {:>7.2}  {:>7.2}  {:>7.2}  {:>8.1}  {:>7.1}  {:>6.1}%  {:>7}  {:>11}  {:>8}",
            c.precision,
            c.batch,
            l.calls,
            l.p50_ms,
            l.p95_ms,
            l.p99_ms,
            c.images_per_second,
            c.gflops,
            100.0 * c.gflops / c.peak_gflops,
            mib(c.memory.weights_bytes as u64),
            mib(c.memory.activations_bytes as u64),
            c.peak_resident_bytes.map_or("-".into(), mib),
        )?;
    }
    r.cases.iter().filter(|c| !c.layers.is_empty()).try_for_each(|c| print_layers(out, c))
}

fn print_layers(out: &mut impl Write, case: &Case) -> io::Result<()> {
    let width = case.layers.iter().map(|l| l.name.len()).max().unwrap_or(0);
    let title = format!("{}, batch {}", case.precision, case.batch);
    let width = width.max(title.len());
    writeln!(out, "\n{title:<width$}       ms   share  GFLOP/s  of peak")?;
    for l in &case.layers {
        write!(out, "{:<width$}  {:>7.3}  {:>5.1}%", l.name, l.ms, 100.0 * l.share)?;
        match l.gflops {
            Some(gflops) => writeln!(out, "  {gflops:>7.1}  {:>6.1}%", 100.0 * gflops / case.peak_gflops)?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
