"""No migration stops a live table: squawk reads each one as the loader will run it.

What is created in the same file is exempt. A line `-- squawk-ignore <rule>` above a statement
waives one rule for it; write the reason behind it in a comment of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flik.storage.migrate import MIGRATIONS, load

NOT_ABOUT_LOCKS = [
    "require-lock-timeout",  # the loader sets it for every file
    "require-statement-timeout",  # a migration may take long, it may not wait long
    "prefer-robust-stmts",  # it asks for IF NOT EXISTS, which takes an invalid index for a finished one
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
]
# squawk says nothing about these; each takes an ACCESS EXCLUSIVE lock and keeps it long
UNKNOWN_TO_SQUAWK = re.compile(
    r"^[ \t]*(VACUUM\s*\(?\s*FULL|CLUSTER|LOCK|TRUNCATE)\b|\bSET\s+(UN)?LOGGED\b", re.I | re.M
)
# What an ALTER TABLE locks stays locked until the transaction ends, so nothing that takes long may come with it
ALTERS = re.compile(
    r"^[ \t]*ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(\w+)\s+(?!SET\s*\(|VALIDATE\b)", re.I | re.M
)
REWRITES = re.compile(r"^[ \t]*(?:UPDATE|DELETE\s+FROM)\s+(?:ONLY\s+)?(\w+)", re.I | re.M)
CREATES = re.compile(r"^[ \t]*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.I | re.M)
MAY_REWRITE = {"0005_events"}  # part of the first release: where it runs, the tables are empty


def rewritten_under_lock(text: str) -> list[str]:
    """`line: rewritten under lock` for each statement that goes through a table while one that was there is locked."""
    made = {name.lower() for name in CREATES.findall(text)}
    if {name.lower() for name in ALTERS.findall(text)} <= made:
        return []
    rewrites = [found for found in REWRITES.finditer(text) if found[1].lower() not in made]
    return [f"{text.count(chr(10), 0, found.start(1)) + 1}: rewritten under lock" for found in rewrites]


def lint(path: Path, *, in_transaction: bool) -> list[str]:
    """`line: rule` for all that squawk, or the expression above, finds in one file."""
    squawk = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    assert squawk, "squawk-cli is not installed: install the dev dependencies"
    mode = "--assume-in-transaction" if in_transaction else "--no-assume-in-transaction"
    excluded = [f"--exclude={rule}" for rule in NOT_ABOUT_LOCKS]
    done = subprocess.run(
        [squawk, "--reporter=json", "--pg-version=15.0", mode, "--include=renaming-object", *excluded, str(path)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = [f"{finding['line'] + 1}: {finding['rule_name']}" for finding in json.loads(done.stdout)]
    text = re.sub(r"--.*", "", path.read_text())
    if in_transaction and "CONCURRENTLY" in text.upper():  # squawk says so only when there is a second statement
        found.append(f"{text[: text.upper().index('CONCURRENTLY')].count(chr(10)) + 1}: concurrently in transaction")
    if in_transaction and path.stem not in MAY_REWRITE:
        found += rewritten_under_lock(text)
    return found + [f"{text.count(chr(10), 0, match.start()) + 1}: locks" for match in UNKNOWN_TO_SQUAWK.finditer(text)]


@pytest.mark.parametrize("migration", load(MIGRATIONS), ids=lambda migration: migration.name)
def test_no_migration_stops_a_live_table(migration: object) -> None:
    name, in_transaction = getattr(migration, "name", ""), getattr(migration, "in_transaction", True)
    assert lint(MIGRATIONS / f"{name}.sql", in_transaction=in_transaction) == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX i ON live (id);", "require-concurrent-index-creation"),
        ("DROP INDEX i;", "require-concurrent-index-deletion"),
        ("REINDEX TABLE live;", "require-concurrent-reindex"),
        ("ALTER TABLE live ADD COLUMN x timestamptz DEFAULT clock_timestamp();", "adding-field-with-default"),
        ("ALTER TABLE live ADD COLUMN x bigint NOT NULL;", "adding-required-field"),
        ("ALTER TABLE live ALTER COLUMN x TYPE bigint;", "changing-column-type"),
        ("ALTER TABLE live ALTER COLUMN x SET NOT NULL;", "adding-not-nullable-field"),
        ("ALTER TABLE live ADD CONSTRAINT c CHECK (x > 0);", "constraint-missing-not-valid"),
        ("ALTER TABLE live ADD PRIMARY KEY (x);", "adding-serial-primary-key-field"),
        ("ALTER TABLE live ADD CONSTRAINT u UNIQUE (x);", "disallowed-unique-constraint"),
        ("ALTER TABLE live DROP COLUMN x;", "ban-drop-column"),
        ("ALTER TABLE live RENAME COLUMN x TO y;", "renaming-column"),
        ("ALTER TABLE live RENAME TO other;", "renaming-table"),
        ("DROP TABLE live;", "ban-drop-table"),
        ("CREATE INDEX CONCURRENTLY i ON live (id);", "concurrently in transaction"),
        ("COMMIT;", "transaction-nesting"),
        ("SELEC 1;", "syntax-error"),
        ("VACUUM FULL live;", "locks"),
        ("vacuum (full) live;", "locks"),
        ("CLUSTER live;", "locks"),
        ("LOCK TABLE live;", "locks"),
        ("TRUNCATE live;", "locks"),
        ("ALTER TABLE live SET UNLOGGED;", "locks"),
    ],
)
def test_what_stops_a_live_table_is_found(tmp_path: Path, sql: str, rule: str) -> None:
    path = tmp_path / "0002_live.sql"
    path.write_text(f"-- a comment\n{sql}\n")
    assert f"2: {rule}" in lint(path, in_transaction=True)


@pytest.mark.parametrize("rewrite", ["UPDATE live SET x = 1;", "DELETE FROM live;", "update other\nset x = 1;"])
def test_what_rewrites_a_table_under_the_lock_of_another_statement_is_found(tmp_path: Path, rewrite: str) -> None:
    path = tmp_path / "0002_live.sql"
    path.write_text(f"ALTER TABLE live ADD COLUMN x bigint;\n\n{rewrite}\n")
    assert lint(path, in_transaction=True) == ["3: rewritten under lock"]


@pytest.mark.parametrize("name", sorted(MAY_REWRITE))
def test_who_may_rewrite_does(name: str) -> None:
    assert rewritten_under_lock(re.sub(r"--.*", "", (MIGRATIONS / f"{name}.sql").read_text())) != []


@pytest.mark.parametrize(
    ("sql", "in_transaction"),
    [
        ("CREATE TABLE new (id bigint PRIMARY KEY);\nCREATE INDEX i ON new (id);\n", True),
        ("ALTER TABLE live ADD COLUMN x bigint NOT NULL DEFAULT 0;\n", True),
        ("ALTER TABLE live ADD CONSTRAINT c CHECK (x > 0) NOT VALID;\n", True),
        ("UPDATE live SET x = 0 WHERE x IS NULL;\n", True),
        ("ALTER TABLE live SET (fillfactor = 50);\nUPDATE live SET x = 0;\n", True),
        ("CREATE TABLE new (x bigint);\nALTER TABLE new ADD COLUMN y bigint;\nUPDATE live SET x = 0;\n", True),
        ("ALTER TABLE live ADD COLUMN x bigint;\nCREATE TABLE new (y bigint);\nUPDATE new SET y = 0;\n", True),
        ("-- squawk-ignore ban-drop-column\nALTER TABLE live DROP COLUMN x;\n", True),
        ("DROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON live (id);\n", False),
    ],
)
def test_what_is_safe_or_waived_passes(tmp_path: Path, sql: str, in_transaction: bool) -> None:
    path = tmp_path / "0002_live.sql"
    path.write_text(sql)
    assert lint(path, in_transaction=in_transaction) == []
