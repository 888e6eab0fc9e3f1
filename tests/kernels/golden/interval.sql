select v from (values (interval '0'), ('1 mon'), ('-1 mon 1 day -00:00:00.000001'), (null), ('2147483647 days'),
    ('178956970 years 7 mons'), ('2562047:47:16.854775'), ('-2562047:47:16.854775')) as t(v)
