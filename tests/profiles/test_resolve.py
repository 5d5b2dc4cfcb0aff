"""A profile and a request's parameters become one configuration, or an error message for each wrong parameter."""

from __future__ import annotations

import os
import pwd
import random
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from profiles.config import RunnerConfig
from profiles.exceptions import InvalidProfile
from profiles.models import RunnerProfile
from runners.services.machines.local import LocalTarget
from runners.services.machines.ssh import config as ssh_config
from runners.services.machines.ssh.target import SSHTarget


@pytest.fixture(autouse=True)
def user_config(tmp_path: Path, settings: Any) -> Path:
    """Return the path of the service's ~/.ssh/config for the test. The file does not exist until the test writes it."""
    settings.RUNNERS_SSH_CONFIG = str(tmp_path / "ssh_config")
    return tmp_path / "ssh_config"


def profile(**fields: Any) -> RunnerProfile:
    """Return an SSH profile with LMOD that leaves host, port, user and modules open, except for `fields`."""
    return RunnerProfile(**{"name": "P", "runner_type": "SSH", "module_loader_type": "LMOD", **fields})


def refused(template: RunnerProfile, params: object) -> dict[str, str]:
    with pytest.raises(InvalidProfile) as caught:
        template.resolve(params)
    return {path: " ".join(texts) for path, texts in caught.value.errors.items()}


FULL = {"modules": "autosubmit", "ssh_host": "h1", "ssh_port": 2200, "ssh_user": "ana"}
FULL_PARAMS = {"MODULES": "autosubmit", "SSH": {"HOST": "h1", "PORT": 2200, "USER": "ana"}}


class TestCompletes:
    def test_fixed_values_alone(self) -> None:
        config = profile(**FULL).resolve({})
        assert config == RunnerConfig("SSH", "LMOD", ("autosubmit",), SSHTarget("h1", 2200, "ana"))

    def test_parameters_alone(self) -> None:
        empty = RunnerProfile(name="P")
        params = {"RUNNER_TYPE": "SSH", "MODULE_LOADER_TYPE": "LMOD", **FULL_PARAMS}
        assert empty.resolve(params) == profile(**FULL).resolve({})

    def test_the_same_values_as_the_profile_are_accepted(self) -> None:
        params = {
            "RUNNER_TYPE": "ssh",
            "MODULE_LOADER_TYPE": "Lmod",
            "MODULES": ["autosubmit"],
            "SSH": FULL_PARAMS["SSH"],
        }
        assert profile(**FULL).resolve(params) == profile(**FULL).resolve(None)

    def test_what_todays_gui_sends(self) -> None:
        template = profile(ssh_host="h1")
        params = {"SSH": {"USERNAME": " ana ", "PORT": "2200"}, "MODULES": "autosubmit"}
        assert template.resolve(params) == profile(**FULL).resolve({})

    @pytest.mark.parametrize("nothing", ["", "  ", None, [], [""], [None, " "]])
    def test_empty_means_not_given(self, nothing: object) -> None:
        params = {
            "RUNNER_TYPE": nothing,
            "MODULE_LOADER_TYPE": nothing,
            "MODULES": nothing,
            "SSH": {"HOST": nothing, "PORT": nothing, "USER": nothing, "USERNAME": nothing},
        }
        assert profile(**FULL).resolve(params) == profile(**FULL).resolve({})
        assert profile(**FULL).resolve({"SSH": nothing}) == profile(**FULL).resolve({})

    @pytest.mark.parametrize(
        ("modules", "expected"),
        [
            ("a", ("a",)),
            ("b/1.0 a", ("b/1.0", "a")),
            ("b, a\nc", ("b", "a", "c")),
            (["b", " a ", ""], ("b", "a")),
            (["b a", "c"], ("b", "a", "c")),
        ],
    )
    def test_lmod_modules_keep_their_order(self, modules: object, expected: tuple[str, ...]) -> None:
        template = profile(ssh_host="h1", ssh_user="ana")
        assert template.resolve({"MODULES": modules}).modules == expected

    def test_only_lmod_separates_at_blanks(self) -> None:
        template = RunnerProfile(name="P", runner_type="LOCAL")
        config = template.resolve({"MODULE_LOADER_TYPE": "VENV", "MODULES": "/opt/my venv"})
        assert config == RunnerConfig("LOCAL", "VENV", ("/opt/my venv",))

    def test_modules_of_a_profile_that_leaves_the_loader_open(self) -> None:
        template = profile(module_loader_type="", modules="a b", ssh_host="h", ssh_user="u")
        assert template.resolve({"MODULE_LOADER_TYPE": "LMOD", "MODULES": ["a", "b"]}).modules == ("a", "b")

    @pytest.mark.parametrize("host", ["login-1.example.com", "10.0.0.1", "::1", "fe80::1%eth0", "alias_1", "h."])
    def test_hosts(self, host: str) -> None:
        template = profile(module_loader_type="NO_MODULE", ssh_user="u")
        assert template.resolve({"SSH": {"HOST": host}}).target == SSHTarget(host, 22, "u")

    def test_snapshot_round_trip(self) -> None:
        config = profile(**FULL).resolve({})
        assert RunnerConfig.from_dict(config.as_dict()) == config


class TestSSHConfig:
    def test_port_and_user_come_from_it_last(self, user_config: Path) -> None:
        user_config.write_text("Host alias\n HostName real.example.com\n Port 2222\n User conf\n")
        template = profile(module_loader_type="NO_MODULE", ssh_host="alias")
        assert template.resolve({}).target == SSHTarget("alias", 2222, "conf")
        assert template.resolve({"SSH": {"PORT": 23, "USER": "me"}}).target == SSHTarget("alias", 23, "me")
        fixed = profile(module_loader_type="NO_MODULE", ssh_host="alias", ssh_port=24, ssh_user="fix")
        assert fixed.resolve({}).target == SSHTarget("alias", 24, "fix")

    def test_all_options(self, user_config: Path) -> None:
        user_config.write_text(
            "Host a\n HostName b\n IdentityFile ~/k1\n IdentityFile /k2\n ProxyJump me@jump:22\n"
            " UserKnownHostsFile ~/kh /kh2\nHost *\n ProxyJump none\n"
        )
        home = pwd.getpwuid(os.getuid()).pw_dir  # like ssh, which ignores $HOME
        found = ssh_config.lookup("a")
        assert (found.hostname, found.proxy_jump) == ("b", "me@jump:22")
        assert found.identity_files == (f"{home}/k1", "/k2")
        assert found.user_known_hosts_files == (f"{home}/kh", "/kh2")
        other = ssh_config.lookup("other")
        assert (other.hostname, other.user, other.port, other.proxy_jump) == ("other", None, 22, None)

    def test_a_missing_file_says_nothing(self) -> None:
        options = ssh_config.lookup("h")
        assert (options.hostname, options.user, options.port, options.problem) == ("h", None, 22, "")

    def test_changes_are_seen(self, user_config: Path, tmp_path: Path) -> None:
        user_config.write_text(f"Include {tmp_path}/conf.d/*\nHost h\n Port 1\n")
        assert ssh_config.lookup("h").port == 1
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d" / "x").write_text("Host h\n Port 22\n")
        assert ssh_config.lookup("h").port == 22
        (tmp_path / "conf.d" / "x").write_text("Host h\n Port 333\n")
        assert ssh_config.lookup("h").port == 333
        (tmp_path / "conf.d" / "x").unlink()
        assert ssh_config.lookup("h").port == 1

    def test_an_included_file_ends_no_block(self, user_config: Path, tmp_path: Path) -> None:
        (tmp_path / "inc").write_text("Host other\n User other\n")
        user_config.write_text(f"Host h\n Include {tmp_path}/inc\n User mine\n")
        assert ssh_config.lookup("h").user == "mine"
        assert ssh_config.lookup("other").user is None  # like ssh: the Include is inside another Host block

    @pytest.mark.parametrize(
        "text",
        ["Host h\n Port many\n", "Host h\n Port 99999\n", "Host 'h\n", "x\n", "Include {path}\n", "Match exec ls\n"],
    )
    def test_a_broken_file_is_an_error(self, user_config: Path, text: str) -> None:
        user_config.write_text(text.format(path=user_config))
        errors = refused(profile(module_loader_type="NO_MODULE", ssh_host="h", ssh_user="u"), {})
        assert list(errors) == ["SSH.HOST"]
        assert str(user_config) in errors["SSH.HOST"]


class TestRefuses:
    @pytest.mark.parametrize(
        ("path", "params"),
        [
            ("RUNNER_TYPE", {"RUNNER_TYPE": "LOCAL"}),
            ("MODULE_LOADER_TYPE", {"MODULE_LOADER_TYPE": "VENV"}),
            ("MODULES", {"MODULES": ["autosubmit", "b"]}),
            ("SSH.HOST", {"SSH": {"HOST": "h2"}}),
            ("SSH.PORT", {"SSH": {"PORT": 22}}),
            ("SSH.USER", {"SSH": {"USERNAME": "eva"}}),
        ],
    )
    def test_contradictions_by_name(self, path: str, params: dict[str, Any]) -> None:
        errors = refused(profile(**FULL), params)
        assert f"The profile P fixes {path} to" in errors[path]

    @pytest.mark.parametrize(
        ("template", "missing"),
        [
            (RunnerProfile(name="P"), {"RUNNER_TYPE", "MODULE_LOADER_TYPE"}),
            (profile(), {"MODULES", "SSH.HOST", "SSH.USER"}),
            (profile(module_loader_type="NO_MODULE", ssh_host="h"), {"SSH.USER"}),
            (profile(module_loader_type="VENV", ssh_host="h", ssh_user="u"), {"MODULES"}),
            (profile(module_loader_type="CONDA", ssh_host="h", ssh_user="u"), {"MODULES"}),
        ],
    )
    def test_missing_ones_with_the_remedy(self, template: RunnerProfile, missing: set[str]) -> None:
        errors = refused(template, {})
        assert set(errors) == missing
        assert all(f"give {path} in profile_params" in text for path, text in errors.items())

    @pytest.mark.parametrize(
        ("params", "path", "nearest"),
        [
            ({"MODULE": "a"}, "MODULE", "Did you mean MODULES?"),
            ({"runner_type": "SSH"}, "runner_type", "Did you mean RUNNER_TYPE?"),
            ({"HOST": "h"}, "HOST", 'Did you mean HOST inside SSH, as in "SSH": {"HOST": ...}?'),
            ({"SSH.PORT": 22}, "SSH.PORT", "Did you mean PORT inside SSH"),
            ({"SSH": {"HOSTNAME": "h"}}, "SSH.HOSTNAME", "Did you mean"),
            ({"SSH": {"PROT": 22}}, "SSH.PROT", "Did you mean PORT?"),
            ({"zzz": 1}, "zzz", "Known are RUNNER_TYPE"),
        ],
    )
    def test_unknown_ones_with_the_nearest(self, params: dict[str, Any], path: str, nearest: str) -> None:
        assert nearest in refused(profile(**FULL), params)[path]

    def test_a_flood_of_unknown_ones_is_cut(self) -> None:
        errors = refused(profile(**FULL), {f"k{i}": 1 for i in range(100_000)})
        assert len(errors) == 11
        assert errors["…"].startswith("99990 more")

    @pytest.mark.parametrize(
        ("path", "params"),
        [
            ("RUNNER_TYPE", {"RUNNER_TYPE": 5}),
            ("RUNNER_TYPE", {"RUNNER_TYPE": "\u017f\u017fh"}),
            ("RUNNER_TYPE", {"RUNNER_TYPE": "SLURM"}),
            ("MODULE_LOADER_TYPE", {"MODULE_LOADER_TYPE": ["VENV"]}),
            ("MODULES", {"MODULES": {"a": 1}}),
            ("MODULES", {"MODULES": ["a", 3]}),
            ("MODULES", {"MODULES": 4.1}),
            ("SSH", {"SSH": "h"}),
            ("SSH.HOST", {"SSH": {"HOST": 1}}),
            ("SSH.USER", {"SSH": {"USER": False}}),
            ("SSH.USER", {"SSH": {"USER": {}}}),
            ("MODULES", {"MODULES": [{}]}),
            ("SSH.PORT", {"SSH": {"PORT": True}}),
            ("SSH.PORT", {"SSH": {"PORT": 22.0}}),
            ("SSH.PORT", {"SSH": {"PORT": "22a"}}),
            ("SSH.PORT", {"SSH": {"PORT": "\uff12\uff12"}}),
            ("SSH.PORT", {"SSH": {"PORT": 0}}),
            ("SSH.PORT", {"SSH": {"PORT": 65536}}),
            ("SSH.PORT", {"SSH": {"PORT": -22}}),
            ("SSH.PORT", {"SSH": {"PORT": 10**5000}}),
            ("SSH.PORT", {"SSH": {"PORT": "9" * 100_000}}),
            ("SSH.USERNAME", {"SSH": {"USER": "a", "USERNAME": "b"}}),
        ],
    )
    def test_wrong_types_and_values(self, path: str, params: dict[str, Any]) -> None:
        assert path in refused(RunnerProfile(name="P"), params)

    @pytest.mark.parametrize("params", [[], "x", 3, True, ["SSH"]])
    def test_parameters_that_are_no_object(self, params: object) -> None:
        assert "object" in refused(profile(**FULL), params)["profile_params"]

    HOSTILE = (
        *("a\nb", "a\x00b", "-oProxyCommand=x", "$(id)", "`id`", "a;b", "a|b", "a b", "'", '"', "a\\b", "a\u202eb"),
        *("h\u00f6st", "\u200bx", "x" * 100_000, "{a,b}", "*", "~", "a\u00a0b", "\ud800"),
    )

    @pytest.mark.parametrize("value", HOSTILE, ids=ascii)
    def test_hostile_texts(self, value: str) -> None:
        template = RunnerProfile(name="P", runner_type="SSH")
        lines = [
            refused(template, {"MODULE_LOADER_TYPE": "NO_MODULE", "SSH": {"HOST": value, "USER": "u"}})["SSH.HOST"],
            refused(template, {"MODULE_LOADER_TYPE": "NO_MODULE", "SSH": {"HOST": "h", "USER": value}})["SSH.USER"],
            refused(template, {"MODULE_LOADER_TYPE": value})["MODULE_LOADER_TYPE"],
            refused(template, {"MODULE_LOADER_TYPE": "VENV", "MODULES": value})["MODULES"],
            refused(template, {"MODULE_LOADER_TYPE": "CONDA", "MODULES": value})["MODULES"],
        ]
        if not set(value) & set(" \n\u00a0"):  # these characters only separate two modules
            lines.append(refused(template, {"MODULE_LOADER_TYPE": "LMOD", "MODULES": value})["MODULES"])
        for line in lines:
            assert line.isprintable()
            assert len(line) < 400

    @pytest.mark.parametrize("path", ["relative", "~/venv", "$HOME/venv", "/a/../b", "/a:/b", "/a\n/b", "/a\u202eb"])
    def test_paths(self, path: str) -> None:
        template = RunnerProfile(name="P", runner_type="LOCAL")
        for loader in ("VENV", "CONDA"):
            if loader == "CONDA" and path == "relative":
                continue
            assert "absolute path" in refused(template, {"MODULE_LOADER_TYPE": loader, "MODULES": path})["MODULES"]

    @pytest.mark.parametrize(
        ("loader", "modules"),
        [
            ("NO_MODULE", "a"),
            ("VENV", ["/a", "/b"]),
            ("CONDA", ["a", "b"]),
            ("LMOD", ["a", "../b"]),
            ("LMOD", "a /b"),
            ("LMOD", " ".join(f"m{i}" for i in range(51))),
        ],
    )
    def test_modules_that_do_not_fit_the_loader(self, loader: str, modules: object) -> None:
        template = RunnerProfile(name="P", runner_type="LOCAL")
        assert list(refused(template, {"MODULE_LOADER_TYPE": loader, "MODULES": modules})) == ["MODULES"]

    def test_local_takes_no_ssh_parameters(self) -> None:
        template = RunnerProfile(name="P", module_loader_type="NO_MODULE")
        errors = refused(template, {"RUNNER_TYPE": "LOCAL", "SSH": {"HOST": "h", "PORT": 22, "USER": "u"}})
        assert set(errors) == {"SSH.HOST", "SSH.PORT", "SSH.USER"}
        assert "leave SSH.HOST out" in errors["SSH.HOST"]

    def test_what_a_request_chooses_has_to_fit_what_the_profile_fixes(self) -> None:
        """The error is at the parameter that the request can change."""
        fixed_host = RunnerProfile(name="P", module_loader_type="NO_MODULE", ssh_host="h", ssh_user="u")
        errors = refused(fixed_host, {"RUNNER_TYPE": "LOCAL"})
        assert list(errors) == ["RUNNER_TYPE"]
        assert "LOCAL does not fit the profile P, which fixes SSH." in errors["RUNNER_TYPE"]
        fixed_modules = RunnerProfile(name="P", runner_type="LOCAL", modules="autosubmit/4")
        errors = refused(fixed_modules, {"MODULE_LOADER_TYPE": "VENV"})
        assert list(errors) == ["MODULE_LOADER_TYPE"]
        assert "fixes MODULES to autosubmit/4" in errors["MODULE_LOADER_TYPE"]

    @pytest.mark.parametrize(
        "host", ["login", "login.example.com", "login.example.com.", "10.0.0.1", "::1", "my_alias", "a--b", "a" * 63]
    )
    def test_hosts_that_may_exist(self, host: str) -> None:
        template = RunnerProfile(name="P", runner_type="SSH", module_loader_type="NO_MODULE")
        config = template.resolve({"SSH": {"HOST": host, "USER": "u"}})
        assert config.target
        assert config.target.host == host

    @pytest.mark.parametrize("host", ["a..b", ".a", "a..", "-a", "a" * 64, f"x.{'a' * 64}.example"])
    def test_hosts_that_dns_cannot_know(self, host: str) -> None:
        template = RunnerProfile(name="P", runner_type="SSH", module_loader_type="NO_MODULE")
        assert "63" in refused(template, {"SSH": {"HOST": host, "USER": "u"}})["SSH.HOST"]

    def test_a_row_that_went_past_clean_is_named_as_the_culprit(self) -> None:
        template = profile(module_loader_type="NO_MODULE", ssh_host="-oX", ssh_user="u")
        assert "The profile P itself is not valid, ask an admin" in refused(template, {})["SSH.HOST"]


def any_json(rng: random.Random, depth: int = 0) -> Any:
    """Return a random JSON value that often contains our names and problematic values."""
    names = ["RUNNER_TYPE", "MODULE_LOADER_TYPE", "MODULES", "SSH", "HOST", "PORT", "USER", "USERNAME", "x", "", "…"]
    texts = [
        "SSH",
        "local",
        "LMOD",
        "VENV",
        "conda",
        "NO_MODULE",
        "/opt/v",
        "a b",
        "-x",
        "\x00",
        "\n",
        "22",
        "h",
        "",
        "ſ",
    ]
    pick = rng.randrange(10 if depth < 4 else 6)
    if pick < 3:
        return rng.choice([*texts, "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(8)))])
    if pick < 6:
        return rng.choice([None, True, False, 0, -1, 22, 10**400, 1.5, float("inf"), float("nan"), 65535, 70000])
    if pick == 6:
        return [any_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(names): any_json(rng, depth + 1) for _ in range(rng.randrange(6))}


@pytest.mark.parametrize("seed", range(20))
def test_any_json_is_resolved_or_rejected_with_a_message(seed: int) -> None:
    rng = random.Random(seed)
    templates = [RunnerProfile(name="P"), profile(), profile(**FULL), profile(runner_type="", module_loader_type="")]
    for _ in range(300):
        params = any_json(rng)
        try:
            config = rng.choice(templates).resolve(params)
        except InvalidProfile as error:
            assert error.errors, params
            assert all(texts and all(isinstance(t, str) and t for t in texts) for texts in error.errors.values())
            str(error).encode()  # no lone surrogate reaches a response body
        else:
            assert isinstance(config.target, LocalTarget) == (config.runner_type == "LOCAL")
            assert bool(config.modules) == (config.module_loader_type != "NO_MODULE")


class TestClean:
    def test_accepts_and_tidies(self) -> None:
        row = profile(name=" P ", modules="b/1 a,\n\n c ", ssh_host=" h ", ssh_user=" u ")
        row.clean()
        assert (row.name, row.modules, row.ssh_host, row.ssh_user) == ("P", "b/1\na\nc", "h", "u")
        assert row.module_list == ["b/1", "a", "c"]

    @pytest.mark.parametrize(
        ("field", "fields"),
        [
            ("name", {"name": "a b"}),
            ("name", {"name": "é"}),
            ("name", {"name": "a/b"}),
            ("name", {"name": "x" * 101}),
            ("name", {"name": "a\n"}),
            ("ssh_host", {"runner_type": "LOCAL", "ssh_host": "h"}),
            ("ssh_port", {"runner_type": "LOCAL", "ssh_port": 22}),
            ("ssh_user", {"runner_type": "LOCAL", "ssh_user": "u"}),
            ("ssh_host", {"ssh_host": "a b"}),
            ("ssh_host", {"ssh_host": "-h"}),
            ("ssh_port", {"ssh_port": 0}),
            ("ssh_port", {"ssh_port": 65536}),
            ("ssh_user", {"ssh_user": "-u"}),
            ("modules", {"module_loader_type": "NO_MODULE", "modules": "a"}),
            ("modules", {"module_loader_type": "VENV", "modules": "/a\n/b"}),
            ("modules", {"module_loader_type": "VENV", "modules": "venv"}),
            ("modules", {"module_loader_type": "CONDA", "modules": "-n"}),
            ("modules", {"modules": "a -b"}),
            ("modules", {"module_loader_type": "", "modules": "-b"}),
        ],
    )
    def test_refuses_by_field(self, field: str, fields: dict[str, Any]) -> None:
        if fields.get("name") == "a\n":
            fields = {"name": "a\nb"}  # blanks at both ends are trimmed
        with pytest.raises(ValidationError) as caught:
            profile(**fields).clean()
        assert list(caught.value.message_dict) == [field]


class TestDescribes:
    def test_wire(self) -> None:
        assert profile(**FULL).as_wire() == {
            "RUNNER_TYPE": "SSH",
            "MODULE_LOADER_TYPE": "LMOD",
            "MODULES": "autosubmit",
            "SSH": {"HOST": "h1", "PORT": 2200, "USER": "ana", "USERNAME": "ana"},
        }
        assert profile(modules="a\nb").as_wire() == {
            "RUNNER_TYPE": "SSH",
            "MODULE_LOADER_TYPE": "LMOD",
            "MODULES": ["a", "b"],
            "SSH": {},
        }
        assert RunnerProfile(name="P").as_wire() == {}

    def test_requirements_are_what_resolve_asks_for(self, user_config: Path) -> None:
        user_config.write_text("Host alias\n User conf\n Port 2222\n")
        found = {item["parameter"]: item for item in profile(ssh_host="alias").requirements()}
        assert set(found) == {"MODULES", "SSH.PORT", "SSH.USER"}
        assert found["MODULES"]["required"]
        assert (found["SSH.PORT"]["default"], found["SSH.USER"]["default"]) == (2222, "conf")
        assert not found["SSH.USER"]["required"]
        for template in (RunnerProfile(name="P"), profile(), profile(ssh_host="alias"), profile(module_loader_type="")):
            required = {item["parameter"] for item in template.requirements() if item["required"]}
            assert required == set(refused(template, {}))

    def test_requirements_that_depend(self) -> None:
        found = {item["parameter"]: item for item in RunnerProfile(name="P").requirements()}
        assert found["SSH.HOST"]["required_when"] == {"RUNNER_TYPE": ["SSH"]}
        assert found["MODULES"]["required_when"] == {"MODULE_LOADER_TYPE": ["CONDA", "VENV", "LMOD"]}
        assert profile(runner_type="LOCAL", module_loader_type="NO_MODULE").requirements() == []


def test_only_a_profile_gives_the_directory_of_runs() -> None:
    profile = RunnerProfile(name="p", runner_type="LOCAL", module_loader_type="NO_MODULE")
    with pytest.raises(InvalidProfile) as error:
        profile.resolve({"RUN_DIRECTORY": "/scratch"})
    assert error.value.errors == {
        "RUN_DIRECTORY": ["Only a profile sets RUN_DIRECTORY, not a request: leave it out, or use another profile."]
    }
    assert profile.resolve({}).run_directory == ""
    profile.set_values({**profile.values(), "RUN_DIRECTORY": "/scratch"})
    profile.clean()
    config = profile.resolve({})
    assert config.run_directory == "/scratch"
    assert RunnerConfig.from_dict(config.as_dict()).run_directory == "/scratch"
    assert "RUN_DIRECTORY" not in [item["parameter"] for item in RunnerProfile(name="open").requirements()]
    profile.set_values({**profile.values(), "RUN_DIRECTORY": "scratch"})
    with pytest.raises(ValidationError, match="not an absolute path"):
        profile.clean()
