"""The YAML format: what an import changes, what it rejects and where, and that an export imports without a change."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from profiles.models import EndpointToggle, PublishedSSHKey, RunnerProfile
from profiles.toggles import toggles
from profiles.yaml.format import Configuration, InvalidConfiguration
from profiles.yaml.importer import export_configuration, import_configuration
from profiles.yaml.reader import parse
from profiles.yaml.writer import dump

# The example of the documentation, with a section of the Autosubmit API whose tag only that API knows.
EXAMPLE = """\
BACKGROUND_TASKS: !api {TASK: 2024-99-99, TASK: 2}
RUNNER_CONFIGURATION:
  PROFILES:
    MY_RUNNER_PROFILE_1:
      RUNNER_TYPE: SSH            # LOCAL or SSH
      MODULE_LOADER_TYPE: LMOD    # CONDA, VENV, LMOD, NO_MODULE
      MODULES: autosubmit
      SSH: {HOST: autosubmit.example.com, PORT: 22, USER: autosubmit_user}
    MY_RUNNER_PROFILE_2_CUSTOM_USERNAME:   # USER left open
      RUNNER_TYPE: SSH
      MODULE_LOADER_TYPE: LMOD
      MODULES: autosubmit
      SSH: {HOST: autosubmit.example.com, PORT: 22}
  SSH_PUBLIC_KEYS: [MY-SSH-PUBLIC-KEY-1, MY-SSH-PUBLIC-KEY-2]
  ENDPOINTS:
    SET_JOB_STATUS: {ENABLED: True}
    CREATE_EXPERIMENT: {ENABLED: False}
    RUNNER_RUN: {ENABLED: True}
"""


def section(text: str) -> str:
    """Return `text` as the section RUNNER_CONFIGURATION. Its first line is line 2."""
    return "RUNNER_CONFIGURATION:\n" + "".join(f"  {line}\n" for line in text.splitlines())


def mistakes(text: str) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(text)
    return {mistake.path: (mistake.line, mistake.message) for mistake in caught.value.mistakes}


def command(*args: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue()


def rows() -> list[Any]:
    return [
        list(RunnerProfile.objects.order_by("name").values()),
        list(PublishedSSHKey.objects.values_list("line", flat=True)),
        EndpointToggle.states(),
    ]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.yml"
    path.write_text(EXAMPLE)
    return path


class TestParse:
    def test_the_documented_example(self) -> None:
        found = parse(EXAMPLE)
        assert found.profiles is not None
        assert list(found.profiles) == ["MY_RUNNER_PROFILE_1", "MY_RUNNER_PROFILE_2_CUSTOM_USERNAME"]
        assert found.profiles["MY_RUNNER_PROFILE_1"].values == {
            "RUNNER_TYPE": "SSH",
            "MODULE_LOADER_TYPE": "LMOD",
            "MODULES": ("autosubmit",),
            "SSH.HOST": "autosubmit.example.com",
            "SSH.PORT": 22,
            "SSH.USER": "autosubmit_user",
        }
        assert "SSH.USER" not in found.profiles["MY_RUNNER_PROFILE_2_CUSTOM_USERNAME"].values
        assert found.ssh_public_keys == ("MY-SSH-PUBLIC-KEY-1", "MY-SSH-PUBLIC-KEY-2")
        assert found.endpoints == {"SET_JOB_STATUS": True, "CREATE_EXPERIMENT": False, "RUNNER_RUN": True}

    def test_the_tolerance_of_requests(self) -> None:
        text = section(
            "PROFILES:\n  X: {RUNNER_TYPE: ssh, MODULE_LOADER_TYPE: Lmod, MODULES: a b, SSH: {USERNAME: u, PORT: '22'}}"
        )
        found = parse(text).profiles
        assert found is not None
        assert found["X"].values == {
            "RUNNER_TYPE": "SSH",
            "MODULE_LOADER_TYPE": "LMOD",
            "MODULES": ("a", "b"),
            "SSH.PORT": 22,
            "SSH.USER": "u",
        }

    def test_all_mistakes_at_once_by_path_and_line(self) -> None:
        found = mistakes(
            section(
                "PROFILE: {}\n"
                "PROFILES:\n"
                "  X:\n"
                "    RUNNER_TYP: SSH\n"
                "    SSH: {HOST: a b,\n"
                "      PORT: 99999}\n"
                "    MODULES: a\n"
                "    MODULES: b\n"
                "  L: {RUNNER_TYPE: LOCAL, SSH: {USER: me}}\n"
                "  bad name: {}\n"
                "  7: {}\n"
                "  D: {}\n"
                "  D: {}\n"
                "SSH_PUBLIC_KEYS: [3,\n"
                "  '-----BEGIN OPENSSH PRIVATE KEY-----']\n"
                "ENDPOINTS:\n"
                "  RUNNER_RUN: {ENABLED: 'no'}\n"
                "  SET_JOB_STATUS: {}\n"
                "  CREATE_EXPERIMENTS: {ENABLED: yes}\n"
            )
        )
        root = "RUNNER_CONFIGURATION"
        lines = {path: line for path, (line, _) in found.items()}
        assert lines == {
            f"{root}.PROFILE": 2,
            f"{root}.PROFILES.X.RUNNER_TYP": 5,
            f"{root}.PROFILES.X.SSH.HOST": 6,
            f"{root}.PROFILES.X.SSH.PORT": 7,
            f"{root}.PROFILES.X.MODULES": 9,
            f"{root}.PROFILES.L.SSH.USER": 10,
            f"{root}.PROFILES.bad name": 11,
            f"{root}.PROFILES.7": 12,
            f"{root}.PROFILES.D": 14,
            f"{root}.SSH_PUBLIC_KEYS[0]": 15,
            f"{root}.SSH_PUBLIC_KEYS[1]": 16,
            f"{root}.ENDPOINTS.RUNNER_RUN.ENABLED": 18,
            f"{root}.ENDPOINTS.SET_JOB_STATUS.ENABLED": 19,
            f"{root}.ENDPOINTS.CREATE_EXPERIMENTS": 20,
        }
        assert "Did you mean PROFILES?" in found[f"{root}.PROFILE"][1]
        assert "Did you mean RUNNER_TYPE?" in found[f"{root}.PROFILES.X.RUNNER_TYP"][1]
        assert "also in line 8" in found[f"{root}.PROFILES.X.MODULES"][1]
        assert "private key" in found[f"{root}.SSH_PUBLIC_KEYS[1]"][1]
        assert "Did you mean CREATE_EXPERIMENT?" in found[f"{root}.ENDPOINTS.CREATE_EXPERIMENTS"][1]

    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            ("a: 1\nb: [1\nc: 2\n", 3, "Not valid YAML"),
            ("RUNNER_CONFIGURATION:\n\tPROFILES: {}\n", 2, "Not valid YAML"),
            ("a: 1\nb: \x01\n", 2, "characters are not allowed"),
            ("a: 1\nb: \ud800\n", 2, "surrogate"),
            (section("PROFILES:\n  X: {MODULES: 2024-99-99}"), 3, "put texts in quotes"),
            (section("PROFILES:\n  X: !!python/object/apply:os.system ['id']"), 3, "could not determine"),
            (section("PROFILES: *nothing"), 2, "undefined alias"),
            ("[" * 10_000, None, "nested too deeply"),
            ("a: 1\n---\nb: 1\n", 2, "single document"),
            ("", None, "section RUNNER_CONFIGURATION is missing"),
            ("just text", None, "section RUNNER_CONFIGURATION is missing"),
            ("RUNNERS_CONFIGURATION: {}", None, "RUNNERS_CONFIGURATION"),
            ("x" * 1_000_001, None, "more than"),
        ],
        ids=range(13),
    )
    def test_syntax_by_line(self, text: str, line: int | None, words: str) -> None:
        found = mistakes(text)
        assert found[""][0] == line
        assert words in found[""][1]

    @pytest.mark.parametrize("value", ["3", "[]", "text", "{PROFILES: 3}", "{PROFILES: {X: 3}}", "{ENDPOINTS: [a]}"])
    def test_wrong_shapes(self, value: str) -> None:
        ((path, (line, message)),) = mistakes(f"RUNNER_CONFIGURATION: {value}").items()
        assert path.startswith("RUNNER_CONFIGURATION")
        assert line == 1
        assert message.startswith("Give a mapping")

    def test_aliases_of_aliases_end(self) -> None:
        layers = "".join(f"a{i}: &a{i} {{{', '.join(f'k{n}: *a{i - 1}' for n in range(10))}}}\n" for i in range(1, 30))
        text = f"a0: &a0 {{x: 1}}\n{layers}RUNNER_CONFIGURATION: {{PROFILES: {{X: *a29}}}}"
        assert len(mistakes(text)) == 10  # k0 to k9 are not parameters

    def test_merge_keys(self) -> None:
        found = parse(
            section("PROFILES:\n  A: &a {RUNNER_TYPE: LOCAL}\n  B: {<<: *a, MODULE_LOADER_TYPE: NO_MODULE}")
        ).profiles
        assert found is not None
        assert found["B"].values == {"RUNNER_TYPE": "LOCAL", "MODULE_LOADER_TYPE": "NO_MODULE"}


@pytest.mark.django_db
class TestImport:
    def test_adds_changes_nothing_the_second_time(self, example: Path) -> None:
        first = command("import_profiles", example)
        assert "+ PROFILES.MY_RUNNER_PROFILE_1: RUNNER_TYPE=SSH; MODULE_LOADER_TYPE=LMOD; MODULES=autosubmit" in first
        assert "~ ENDPOINTS.CREATE_EXPERIMENT.ENABLED: true -> false" in first
        assert first.endswith("Added 4, changed 1, removed 0.\n")
        before = rows()
        assert command("import_profiles", example) == "Nothing to change.\n"
        assert rows() == before
        assert not EndpointToggle.is_enabled("CREATE_EXPERIMENT")

    def test_dry_run_writes_nothing(self, example: Path) -> None:
        before = rows()
        assert "Would add 4, change 1, remove 0." in command("import_profiles", example, "--dry-run")
        assert rows() == before

    def test_says_each_changed_field(self) -> None:
        import_configuration(parse(EXAMPLE))
        text = EXAMPLE.replace("PORT: 22, USER: autosubmit_user", "PORT: 2222").replace(
            "MODULES: autosubmit\n", "MODULES: [a, b]\n", 1
        )
        plan = import_configuration(parse(text))
        assert [str(change) for change in plan.changes] == [
            "~ PROFILES.MY_RUNNER_PROFILE_1.MODULES: autosubmit -> a, b",
            "~ PROFILES.MY_RUNNER_PROFILE_1.SSH.PORT: 22 -> 2222",
            "~ PROFILES.MY_RUNNER_PROFILE_1.SSH.USER: autosubmit_user -> (open)",
        ]
        row = RunnerProfile.objects.get(name="MY_RUNNER_PROFILE_1")
        assert (row.modules, row.ssh_port, row.ssh_user) == ("a\nb", 2222, "")

    def test_removes_only_with_prune(self) -> None:
        import_configuration(parse(EXAMPLE))
        text = section("PROFILES: {NEW: {}}\nSSH_PUBLIC_KEYS: [MY-SSH-PUBLIC-KEY-2]")
        plan = import_configuration(parse(text))
        assert plan.count("remove") == 0
        assert len(plan.kept) == 3
        assert RunnerProfile.objects.count() == 3
        plan = import_configuration(parse(text), prune=True)
        assert plan.count("remove") == 3
        assert list(RunnerProfile.objects.values_list("name", flat=True)) == ["NEW"]
        assert rows()[1] == ["MY-SSH-PUBLIC-KEY-2"]
        assert not EndpointToggle.is_enabled("CREATE_EXPERIMENT")

    @pytest.mark.parametrize("text", ["RUNNER_CONFIGURATION:", section("PROFILES:\nSSH_PUBLIC_KEYS:\nENDPOINTS:")])
    def test_prune_leaves_what_the_file_does_not_have(self, text: str) -> None:
        import_configuration(parse(EXAMPLE))
        before = rows()
        assert not import_configuration(parse(text), prune=True)
        assert rows() == before

    def test_all_or_nothing(self, example: Path) -> None:
        command("import_profiles", example)
        before = rows()
        example.write_text(
            section("PROFILES:\n  GOOD: {RUNNER_TYPE: LOCAL}\n  BAD: {SSH: {PORT: 0}}\nSSH_PUBLIC_KEYS: [new]")
        )
        with pytest.raises(
            CommandError, match=r"Nothing was imported[^\n]*\n  RUNNER_CONFIGURATION.PROFILES.BAD.SSH.PORT \(line 4\)"
        ):
            command("import_profiles", example)
        assert rows() == before

    def test_all_or_nothing_in_the_middle_of_writing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(row: PublishedSSHKey) -> None:
            raise RuntimeError("the power cut")

        monkeypatch.setattr(PublishedSSHKey, "save", fail)
        before = rows()
        with pytest.raises(RuntimeError):
            import_configuration(parse(EXAMPLE))
        assert rows() == before

    def test_what_an_admin_switched_off_stays_off(self) -> None:
        import_configuration(parse(EXAMPLE))
        RunnerProfile.objects.update(enabled=False, description="Ask Ana")
        assert not import_configuration(parse(EXAMPLE))
        import_configuration(parse(EXAMPLE.replace("PORT: 22", "PORT: 23")))
        assert set(RunnerProfile.objects.values_list("enabled", "description", "ssh_port")) == {(False, "Ask Ana", 23)}

    def test_reads_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(EXAMPLE))
        assert "Added 4" in command("import_profiles", "-")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "latin").write_bytes(b"a: \xe9\n")
        for name, words in (("none", "No such file"), (".", "Is a directory"), ("latin", "not valid UTF-8")):
            with pytest.raises(CommandError, match=words):
                command("import_profiles", tmp_path / name)


@pytest.mark.django_db
class TestExport:
    def test_imports_to_no_change(self, tmp_path: Path) -> None:
        RunnerProfile.objects.create(name="1.0", enabled=False, description='It\'s: "é"\n#', modules="a\nb")
        RunnerProfile.objects.create(name="no", runner_type="LOCAL", module_loader_type="VENV", modules="/a b: c")
        RunnerProfile.objects.create(name="x", runner_type="SSH", ssh_host="::1", ssh_port=22, ssh_user="0x1F")
        PublishedSSHKey.objects.create(line="ssh-ed25519 AAAA b: #c")
        EndpointToggle.objects.create(name="RUNNER_RUN", enabled=False)
        RunnerProfile.objects.filter(name="no").update(modules="/a b # c")
        before = export_configuration()
        file = tmp_path / "out.yml"
        command("export_profiles", "--output", file)
        assert command("import_profiles", file, "--prune") == "Nothing to change.\n"
        RunnerProfile.objects.all().delete()
        PublishedSSHKey.objects.all().delete()
        EndpointToggle.objects.all().delete()
        command("import_profiles", file)
        assert export_configuration() == before
        assert command("export_profiles") == file.read_text()

    def test_the_empty_database(self) -> None:
        text = command("export_profiles")
        states = {name: toggle.is_enabled for name, toggle in toggles().items()}
        assert parse(text) == Configuration(profiles={}, ssh_public_keys=(), endpoints=states)

    def test_is_deterministic(self) -> None:
        import_configuration(parse(EXAMPLE))
        text = dump(export_configuration())
        RunnerProfile.objects.all().delete()
        import_configuration(parse(text))
        assert dump(export_configuration()) == text

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match="Cannot write"):
            command("export_profiles", "--output", tmp_path / "no" / "x")
