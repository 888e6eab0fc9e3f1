-- The role that the server reads as; run by the superuser in the database to be served.
\getenv password READER_PASSWORD
create role reader login password :'password';
grant usage on schema public to reader;
grant select on all tables in schema public to reader;
alter default privileges in schema public grant select on tables to reader; -- of tables that this user will make
