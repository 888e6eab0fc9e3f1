"""What is deployed agrees with the server: settings, ports, grace, metrics, files.  Nothing is built or started but
the server itself."""

from __future__ import annotations

import configparser
import fnmatch
import json
import os
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import flight

from demo.postgres import EmbeddedPostgres
from flight_server import startup
from flight_server.config import Settings, http_address, load
from flight_server.service import SHUTDOWN_S
from tests.helpers import commands
from tests.helpers.server import ServerProcess

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in (DEPLOY / "kubernetes").glob("*.yaml")}
[CONTAINER] = MANIFESTS["deployment"]["spec"]["template"]["spec"]["containers"]
POD = MANIFESTS["deployment"]["spec"]["template"]["spec"]
SERVERS = ("server", "server-gpu")
VARIABLES = {f"PGFLIGHT_{name.upper()}" for name in Settings.model_fields} | {"PGFLIGHT_CONFIG"}
FLIGHT, HTTP = 8815, 9464


def unit() -> list[tuple[str, str]]:
    """Return the assignments of the systemd unit, in order: keys may come twice."""
    lines = (DEPLOY / "pgflight-server.service").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#[")
    return [(key, value) for key, _, value in pairs]


def deployed() -> Iterator[Path]:
    yield from (ROOT / "Dockerfile", ROOT / "docker-compose.yml")
    yield from (path for path in DEPLOY.rglob("*") if path.is_file())


def image_environment() -> dict[str, str]:
    """Return what the Dockerfile's ENV lines set."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return dict(
        word.split("=", 1) for line in re.findall(r"^ENV (.*)", joined, re.M) for word in shlex.split(line)
    )


def pod_environment() -> dict[str, str]:
    return {each["name"]: each.get("value", "secret") for each in CONTAINER["env"]}


ENVIRONMENTS = {
    **{name: image_environment() | COMPOSE["services"][name]["environment"] for name in SERVERS},
    "kubernetes": image_environment() | pod_environment(),
}


def test_every_file_parses() -> None:
    for path in deployed():
        text = path.read_text()
        if path.suffix in {".yaml", ".yml"}:
            assert yaml.safe_load(text), path
        elif path.suffix == ".json":
            assert json.loads(text), path
        elif path.suffix == ".service":
            parsed = configparser.RawConfigParser(strict=False, delimiters=("=",))
            parsed.read_string(text)
            assert parsed.sections() == ["Unit", "Service", "Install"]
        else:
            assert path.suffix == ".sql" or path.name == "Dockerfile", f"{path} is looked at by nobody"


def test_variables_are_settings() -> None:
    for path in deployed():
        found = set(re.findall(r"\bPGFLIGHT_\w+", re.sub(r"#.*", "", path.read_text())))
        assert found <= VARIABLES, path
    assert all(ENVIRONMENTS.values())


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_the_settings_are_accepted_together(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES & os.environ.keys():
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENTS[place].items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.listen.endswith(f"://0.0.0.0:{FLIGHT}")
    assert http_address(settings.http_listen) == ("0.0.0.0", HTTP)
    assert settings.drain_grace_s + SHUTDOWN_S < grace_s(place)
    assert not settings.allow_superuser
    if place == "kubernetes":
        assert settings.tls_cert
        assert not settings.allow_plaintext


def test_the_image_alone_does_not_start_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in image_environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match="auth_token_file"):
        load()


def grace_s(place: str) -> float:
    if place == "kubernetes":
        return float(POD["terminationGracePeriodSeconds"])
    return float(COMPOSE["services"][place]["stop_grace_period"].removesuffix("s"))


def test_flags_exist() -> None:
    [start] = [value for key, value in unit() if key == "ExecStart"]
    program, *arguments = shlex.split(start)
    commands.check([Path(program).name, *arguments])
    [entry], [command] = (
        [json.loads(found) for found in re.findall(rf"^{word} (\[.*\])", DOCKERFILE, re.M)]
        for word in ("ENTRYPOINT", "CMD")
    )
    commands.check([*entry, *command])
    commands.check([*entry, *CONTAINER["args"]])
    for name in SERVERS:
        commands.check([*entry, *COMPOSE["services"][name].get("command", command)])


def test_ports_agree_in_the_image() -> None:
    assert f"EXPOSE {FLIGHT} {HTTP}" in DOCKERFILE
    assert f"http://127.0.0.1:{HTTP}/healthz" in DOCKERFILE


def test_services_and_ports_agree_in_compose() -> None:
    services = COMPOSE["services"]
    for name in SERVERS:
        assert services[name]["ports"] == [f"127.0.0.1:{FLIGHT}:{FLIGHT}"], "without TLS for this host only"
        assert set(services[name]["depends_on"]) <= services.keys()
        dsn = psycopg.conninfo.conninfo_to_dict(services[name]["environment"]["PGFLIGHT_DSN"])
        assert dsn["host"] in services
        assert dsn["dbname"] == services["postgres"]["environment"]["POSTGRES_DB"]
        assert f"create role {dsn['user']} " in (DEPLOY / "postgres" / "reader.sql").read_text()
    assert [services[name]["profiles"] for name in SERVERS] == [["cpu"], ["gpu"]]
    [job] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert all(host in services[name]["networks"]["default"]["aliases"] for name in SERVERS)
    assert int(port) == HTTP
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


def test_volumes_of_compose_exist() -> None:
    mounts = [mount.split(":") for service in COMPOSE["services"].values() for mount in service["volumes"]]
    for source, *_ in mounts:
        assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"], source
    assert {source for source, *_ in mounts if not source.startswith(".")} == COMPOSE["volumes"].keys()
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/pgflight.yaml").read_text())["providers"][
        0
    ]
    assert ["./deploy/grafana/dashboards", provider["options"]["path"], "ro"] in mounts
    assert image_environment()["NUMBA_CACHE_DIR"] in {target for _, target, *_ in mounts}


def test_ports_probes_and_volumes_agree_in_kubernetes() -> None:
    ports = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    assert ports == {"flight": FLIGHT, "http": HTTP}
    paths = {kind: CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in paths.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip
    assert {get["port"] for get in paths.values()} == {"http"}
    service = MANIFESTS["service"]["spec"]
    assert [(each["port"], each["targetPort"]) for each in service["ports"]] == [(FLIGHT, "flight")]
    labels = MANIFESTS["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"] == labels
    assert MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["disruption"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["network"]["spec"]["podSelector"]["matchLabels"] == labels
    mounted = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert mounted.keys() == {each["name"] for each in POD["volumes"]}
    assert image_environment()["NUMBA_CACHE_DIR"] in mounted.values()
    files = [value for value in pod_environment().values() if value.startswith("/etc/")]
    assert files
    assert all(str(Path(file).parent) in mounted.values() for file in files)
    assert POD["enableServiceLinks"] is False
    assert {f"{name}.yaml" for name in MANIFESTS.keys() - {"kustomization"}} == set(
        MANIFESTS["kustomization"]["resources"]
    )


def test_the_user_is_the_same_everywhere() -> None:
    assert "--uid 10001" in DOCKERFILE
    final = [stage for stage in DOCKERFILE.split("\nFROM ")[1:] if " AS cpu" in stage or " AS cuda" in stage]
    assert len(final) == 2
    assert all(stage.strip().endswith("USER 10001:10001") for stage in final)
    assert POD["securityContext"]["runAsUser"] == 10001


def test_the_image_is_made_of_files_that_are_there() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = [line[1:] for line in ignore if line.startswith("!")]
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)", DOCKERFILE, re.M) for word in line.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch.fnmatch(name, each) for each in let_through), f"{name} is ignored"
    assert set(let_through) == set(copied)
    for lock in re.findall(r"-r (\S+)", DOCKERFILE):
        assert lock in copied


def test_the_unit_gives_time_and_no_rights() -> None:
    settings = dict(unit())
    assert float(settings["TimeoutStopSec"]) > Settings().drain_grace_s + SHUTDOWN_S
    assert settings["DynamicUser"] == "yes"
    assert settings["CapabilityBoundingSet"] == ""
    credentials = {value.partition(":")[0] for key, value in unit() if key == "LoadCredential"}
    used = set(re.findall(r"%d/([\w.-]+)", "\n".join(value for _, value in unit())))
    assert used == credentials


@pytest.fixture(scope="module")
def exported(postgres: EmbeddedPostgres) -> dict[str, set[str]]:
    """The names of all samples that a server exports after one good and one bad read, with their labels."""
    with ServerProcess(postgres.dsn(), "--http-listen", "0") as server:
        with flight.connect(server.uri) as client:
            client.do_get(flight.Ticket(b"select 1")).read_all()
            with pytest.raises(Exception, match="syntax"):
                client.do_get(flight.Ticket(b"select select")).read_all()
        port = next(line["http_port"] for line in server.log if line.get("event") == "listening")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_the_dashboard_shows_metrics_that_exist(exported: dict[str, set[str]]) -> None:
    panels: list[dict[str, Any]] = json.loads((DEPLOY / "grafana/dashboards/pgflight.json").read_text())["panels"]
    targets = [target for panel in panels for target in panel["targets"]]
    shown: set[str] = set()
    for target in targets:
        names = set(re.findall(r"\bpgflight_\w+", target["expr"]))
        assert names
        assert names <= exported.keys(), target["expr"]
        labels = {
            word for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for word in re.split(r",\s*", group)
        }
        labels |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(labels <= exported[name] for name in names), target["expr"]
        shown |= names
    passed_over = {name for name in exported if not name.endswith(("_created", "_sum", "_count"))} - shown
    assert passed_over == set(), "a metric that nobody sees"


def test_the_page_of_operations_names_the_same(exported: dict[str, set[str]]) -> None:
    page = set(re.findall(r"`(pgflight_\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported if not name.endswith("_created")}
    assert page == known


def test_the_role_of_compose_is_made_and_reads(postgres: EmbeddedPostgres) -> None:
    """The script runs in psql as the image of PostgreSQL runs it; the role is safe, and reads later tables too."""
    script = DEPLOY / "postgres" / "reader.sql"
    with postgres.connect(user="postgres") as connection:
        connection.execute("create database shop")
        try:
            psql = [postgres._cluster.distribution.bin / "psql", postgres.dsn(user="postgres", dbname="shop")]
            said = subprocess.run(
                [*psql, "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-f", script],
                env={**os.environ, "READER_PASSWORD": "it's"},
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert said.returncode == 0, said.stderr
            with psycopg.connect(postgres.dsn(user="postgres", dbname="shop")) as shop:
                shop.execute("create table later as select 7 as n")
            with psycopg.connect(postgres.dsn(user="reader", dbname="shop")) as reader:
                assert reader.execute("select n from later").fetchone() == (7,)
            assert startup.probe(postgres.dsn(user="reader", dbname="shop")).dangers == []
        finally:
            connection.execute("drop database shop with (force)")
            connection.execute("drop role if exists reader")
