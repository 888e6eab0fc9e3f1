select u from (values (uuid '00000000-0000-0000-0000-000000000000'), ('ffffffff-ffff-ffff-ffff-ffffffffffff'), (null),
    ('00112233-4455-6677-8899-aabbccddeeff')) as t(u)
