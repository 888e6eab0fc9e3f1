select 1::int4 as a, 'x'::text as b, 1::numeric(10, 2) as c where false
