select d::date as d, d::timestamp as ts, d::timestamptz as tz, i
from (values ('infinity', interval 'infinity'), ('2000-02-29 00:00:00+00', '1 day'), ('-infinity', '-infinity'), (null, null))
    as t(d, i)
