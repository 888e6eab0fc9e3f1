select null::int4 as a, null::text as b, null::numeric(5, 1) as c, null::bool as d, null::uuid as e, null::interval as f
from generate_series(1, 9)
