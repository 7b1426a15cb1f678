"""What scripts/h200 says without a compiler, and how it reads what the compiler writes."""

import importlib.util
import sys

import jax
import pytest

from scripts import h200_steps
from scripts.h200 import __main__ as h200
from scripts.h200.compilation import UnfitEnvironmentError, require_compiler
from scripts.h200.resources import KernelResources, read_kernel

PTX = """
.visible .entry scan_mosaic_gpu_kernel(
.maxntid 128, 1, 1
	bar.sync 	0;
	ld.global.b32 	%r1, [%rd1];
	st.shared.b32 	[%r2], %r1;
	bar.sync 	%r3, 128;
	@%p1 mbarrier.arrive.expect_tx.shared.b64 %rd2, [%r4], %r5;
	@%p1 cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd3];
	@%p1 cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%rd3, {%r1, %r2, %r3} ], [%r4];
	@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd4], [%rd5], %r6;
	st.global.v2.b32 	[%rd6], {%r7, %r8};
	red.global.add.f32 	[%rd7], %r9;
"""
REPORT = """
ptxas info    : Function properties for scan_mosaic_gpu_kernel
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 114 registers, used 2 barriers, 1 bytes smem
"""
PASSES = "gpu.launch_func ... dynamic_shared_memory_size %c74768_i32 args(%48 : !llvm.ptr)"


def test_too_old_a_jax_is_named(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.10.2")
    with pytest.raises(UnfitEnvironmentError, match=r"needs jax >= 0\.11\.2, this is 0\.10\.2"):
        require_compiler()


def test_a_missing_plugin_is_named(monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.11.2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnfitEnvironmentError, match="wheels jax-cuda13-plugin"):
        require_compiler()


@pytest.mark.parametrize(
    ("main", "command"), [(h200.main, "scan"), (h200.main, "layer"), (h200_steps.main, "steps")]
)
def test_an_unfit_environment_is_one_line_before_any_table(main, command, monkeypatch, capsys):
    monkeypatch.setattr(jax, "__version__", "0.10.2")
    monkeypatch.setattr(jax, "default_backend", jax.default_backend)  # the steps' main changes it
    monkeypatch.setattr(sys, "argv", ["scripts", command])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith("error: compiling for the H200 needs jax >= 0.11.2")
    assert len(said.err.splitlines()) == 1


def test_a_kernel_is_read_from_its_files(tmp_path):
    (tmp_path / "scan_7.ptx").write_text(PTX)
    (tmp_path / "scan_7.ptxas").write_text(REPORT)
    (tmp_path / "scan_7.mlir-passes.log").write_text(PASSES)
    assert read_kernel(tmp_path / "scan_7.ptx") == KernelResources(
        name="scan",
        registers=114,
        spill_bytes=20,
        shared_bytes=74768,
        stores=3,
        barriers=2,
        atomics=1,
        threads=128,
    )


def test_a_report_without_registers_does_not_pass_as_none(tmp_path):
    (tmp_path / "scan_7.ptx").write_text(PTX)
    (tmp_path / "scan_7.ptxas").write_text("spills: 0 bytes spill stores, 0 bytes spill loads")
    (tmp_path / "scan_7.mlir-passes.log").write_text(PASSES)
    with pytest.raises(RuntimeError, match=r"scan_7\.ptx: nothing matches 'Used"):
        read_kernel(tmp_path / "scan_7.ptx")


@pytest.mark.parametrize(
    ("registers", "shared_bytes", "blocks"),
    [(128, 27_664, 4), (129, 27_664, 3), (255, 106_520, 2), (80, 150_000, 1), (16, 1_000, 16)],
)
def test_blocks_of_a_multiprocessor_are_what_its_scarcest_resource_holds(
    registers, shared_bytes, blocks
):
    kernel = KernelResources("scan", registers, 0, shared_bytes, 0, 0, 0, threads=128)
    assert kernel.blocks_per_multiprocessor == blocks
