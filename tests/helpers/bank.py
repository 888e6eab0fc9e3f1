"""Accounts whose sum never changes, while money moves, rows move, and DDL gets in the way."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import psycopg

from demo.postgres import EmbeddedPostgres


class Bank:
    """Two tables of accounts, one plain and one partitioned, and those who change them."""

    ACCOUNTS = 20_000
    TOTAL = ACCOUNTS * 100

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self.stop = threading.Event()
        self.failures: list[BaseException] = []
        self.done: Counter[str] = Counter()
        with postgres.connect() as connection:
            connection.execute(
                f"""
                drop schema if exists bank cascade; create schema bank;
                create table bank.plain (id int8 primary key, balance int8, pad text);
                insert into bank.plain select g, 100, repeat('x', 150) from generate_series(1, {self.ACCOUNTS}) g;
                create table bank.parted (id int8, balance int8, pad text) partition by hash (id);
                create table bank.part0 partition of bank.parted for values with (modulus 2, remainder 0);
                create table bank.part1 partition of bank.parted for values with (modulus 2, remainder 1);
                insert into bank.parted select * from bank.plain;
                """
            )

    def run(self, *actions: object) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._loop, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        return threads

    def _loop(self, action: object) -> None:
        with self.postgres.connect() as connection:
            while not self.stop.is_set():
                try:
                    self.done[action(connection)] += 1  # type: ignore[operator]
                except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable):
                    continue  # the writers' own quarrels: their transaction is rolled back whole
                except psycopg.Error as failure:
                    self.failures.append(failure)
                    return

    @staticmethod
    def transfer(connection: psycopg.Connection) -> str:
        for table in ("bank.plain", "bank.parted"):
            one, two = random.sample(range(1, Bank.ACCOUNTS + 1), 2)
            with connection.transaction():
                paid = connection.execute(f"update {table} set balance = balance - 1 where id = {one}").rowcount
                got = connection.execute(f"update {table} set balance = balance + 1 where id = {two}").rowcount
                if (paid, got) != (1, 1):  # an account was being moved: nothing may change
                    raise psycopg.Rollback
        return "transfer"

    @staticmethod
    def move(connection: psycopg.Connection) -> str:
        """Delete accounts and insert them again: their rows go to other pages."""
        first = random.randrange(1, Bank.ACCOUNTS - 200)
        with connection.transaction():
            connection.execute(
                f"with gone as (delete from bank.plain where id between {first} and {first + 99} returning *) "
                "insert into bank.plain select * from gone"
            )
        return "move"

    @staticmethod
    def vacuum(connection: psycopg.Connection) -> str:
        connection.execute("vacuum bank.plain")
        time.sleep(0.05)
        return "vacuum"

    @staticmethod
    def rewrite(connection: psycopg.Connection) -> str:
        """DDL that gives the table new storage: VACUUM FULL, ALTER … TYPE, TRUNCATE and refill."""
        connection.execute("set lock_timeout = '200ms'")
        choice = random.randrange(4)
        if choice == 0:
            connection.execute("vacuum full bank.plain")
        elif choice == 1:
            connection.execute("alter table bank.plain alter pad type varchar")
            connection.execute("alter table bank.plain alter pad type text using pad || ''")
        elif choice == 2:
            with connection.transaction():
                connection.execute("create temp table kept on commit drop as select * from bank.plain")
                connection.execute("truncate bank.plain")
                connection.execute("insert into bank.plain select * from kept")
        else:
            with connection.transaction():
                connection.execute("alter table bank.parted detach partition bank.part1")
                connection.execute(
                    "alter table bank.parted attach partition bank.part1 for values with (modulus 2, remainder 1)"
                )
        time.sleep(0.1)
        return ("vacuum full", "alter", "truncate", "detach")[choice]
