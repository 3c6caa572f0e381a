#!/usr/bin/env python3
"""The JSON Schema of the configuration, held against `portcullis check` and PyPI's check-jsonschema.

Every whole configuration in README.md, docs/ and examples/ validates. Each is then spoilt in its shape, key by key: what the
schema refuses the gateway refuses too, and an unknown key, a value of the wrong kind or a missing required key is refused by
both.

    python3 tests/interop/schema.py --gateway target/debug/portcullis --venv target/schema-venv
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Checks, expect, limit_run, make_venv

ROOT = Path(__file__).resolve().parent.parent.parent
PINS = Path(__file__).resolve().parent / "schema-requirements.txt"
# How many spoilt configurations are tried on the gateway itself; each is a process.
TRIED = 400


def pages() -> list[Path]:
    """README.md and every page of docs/ and examples/."""
    below = [page for folder in ("docs", "examples") for page in sorted((ROOT / folder).rglob("*.md"))]
    return [ROOT / "README.md", *[page for page in below if "node_modules" not in page.parts]]


def blocks() -> list[tuple[str, str]]:
    """The whole configurations of the pages: fenced blocks of `yaml` that are no `yaml fragment`."""
    found = []
    for page in pages():
        for match in re.finditer(r"^```yaml\n(.*?)^```$", page.read_text(), re.S | re.M):
            line = page.read_text()[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match.group(1)))
    return found


def as_json(value):
    """The value as JSON has it: the key `404` is a text there, which is what editors compare with a schema."""
    if isinstance(value, dict):
        return {str(key): as_json(it) for key, it in value.items()}
    return [as_json(it) for it in value] if isinstance(value, list) else value


def maps(schema: dict, value, path: tuple = ()):
    """Each map with fixed keys in a valid configuration: its path and its schema."""
    for option in schema.get("anyOf", []):
        yield from maps(option, value, path)
    if isinstance(value, dict):
        properties = schema.get("properties")
        if properties is not None:
            yield path, schema
            for key, inner in value.items():
                if key in properties:
                    yield from maps(properties[key], inner, (*path, key))
        elif isinstance(schema.get("additionalProperties"), dict):
            for key, inner in value.items():
                yield from maps(schema["additionalProperties"], inner, (*path, key))
    if isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from maps(schema["items"], inner, (*path, index))


def at(value, path: tuple):
    """What stands at a path."""
    for step in path:
        value = value[step]
    return value


def spoilt(schema: dict, value):
    """Configurations that are wrong in one place of their shape, each with what is wrong."""
    sections: dict[tuple, list[dict]] = {}
    for path, section in maps(schema, value):
        sections.setdefault(path, []).append(section)
    for path, section in maps(schema, value):
        unknown = copy.deepcopy(value)
        at(unknown, path)["zzz_unknown"] = 1
        yield f"{path}: an unknown key", unknown
        for key in at(value, path):
            kind = section["properties"].get(key, {})
            wrong = copy.deepcopy(value)
            # A map where a scalar or a list is meant, and the other way round.
            nested = "properties" in json.dumps(kind) or "additionalProperties" in json.dumps(kind)
            if not kind.keys() - {"description", "$comment", "default"}:
                continue
            at(wrong, path)[key] = [[]] if nested else {"zzz_unknown": {}}
            yield f"{path}: {key} of another kind", wrong
        for key in section.get("required", []):
            if key in at(value, path):
                # What is left may be right in another form of the same map.
                left = at(value, path).keys() - {key}
                if any(left <= other["properties"].keys() and left >= set(other.get("required", []))
                       for other in sections[path]):
                    continue
                missing = copy.deepcopy(value)
                del at(missing, path)[key]
                yield f"{path}: {key} is missing", missing


def main() -> int:
    """Run all checks; 0 where they pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", required=True, type=Path)
    parser.add_argument("--venv", required=True, type=Path)
    arguments = parser.parse_args()
    limit_run(600)
    gateway = arguments.gateway.resolve()
    python = make_venv(arguments.venv.resolve(), PINS)
    # The rest needs its packages.
    if Path(sys.prefix).resolve() != arguments.venv.resolve():
        return subprocess.run([python, *sys.argv], check=False).returncode
    import jsonschema
    import ruamel.yaml

    checks = Checks()
    schema = json.loads(subprocess.run([gateway, "schema"], capture_output=True, check=True).stdout)
    validator = jsonschema.Draft202012Validator(schema)
    yaml = ruamel.yaml.YAML(typ="safe", pure=True)
    whole = [(place, text, as_json(yaml.load(text))) for place, text in blocks()]

    def is_schema() -> None:
        jsonschema.Draft202012Validator.check_schema(schema)

    def pages_validate() -> str:
        bad = [
            f"{place}: {error.json_path}: {error.message[:120]}"
            for place, _, value in whole
            for error in validator.iter_errors(value)
        ]
        expect(not bad, "\n".join(bad))
        return f"{len(whole)} blocks"

    def tool_validates() -> str:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "schema.json").write_text(json.dumps(schema))
            files = []
            for number, (_, text, _) in enumerate(whole):
                files.append(Path(folder) / f"{number}.yaml")
                files[-1].write_text(text)
            tool = arguments.venv / "bin/check-jsonschema"
            ran = subprocess.run([tool, "--schemafile", f"{folder}/schema.json", *files], capture_output=True, text=True)
            expect(ran.returncode == 0, ran.stdout + ran.stderr)
        return f"{len(whole)} files"

    def spoilt_are_refused() -> str:
        count, every = 0, 0
        cases = [(place, what, value) for place, _, good in whole for what, value in spoilt(schema, good)]
        every = max(1, len(cases) // TRIED)
        with tempfile.TemporaryDirectory() as folder:
            for number, (place, what, value) in enumerate(cases):
                expect(not validator.is_valid(value), f"the schema takes {place} {what}")
                count += 1
                if number % every:
                    continue
                file = Path(folder) / "gateway.yaml"
                # JSON is YAML.
                file.write_text(json.dumps(value))
                ran = subprocess.run([gateway, "check", "-c", file], capture_output=True, text=True)
                expect(ran.returncode == 2, f"the gateway takes {place} {what}")
        return f"{count} by the schema, every {every}. by the gateway"

    checks.run("the schema is one of 2020-12", is_schema)
    checks.run("whole configurations of the documents validate", pages_validate)
    checks.run("check-jsonschema validates them", tool_validates)
    checks.run("what is spoilt in its shape is refused by the schema and by the gateway", spoilt_are_refused)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
