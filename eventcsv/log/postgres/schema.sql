do $$ begin perform pg_advisory_xact_lock(1702257011, 0); end $$;  -- "if not exists" is not safe for two at once

create schema if not exists eventcsv;

create table if not exists eventcsv.schema_version (version int primary key);
insert into eventcsv.schema_version values (1) on conflict do nothing;

create table if not exists eventcsv.job (
    number int generated always as identity primary key,
    name text not null unique
);

create table if not exists eventcsv.line (
    job int not null references eventcsv.job,
    segment int not null,
    ends bigint not null,
    id text,
    line bytea not null,
    primary key (job, segment, ends)
);
create unique index if not exists line_id on eventcsv.line (job, id);

create table if not exists eventcsv.claim (
    job int not null references eventcsv.job,
    key text not null,
    owner text not null,
    token bigint not null,
    until timestamptz not null,
    done_segment int not null default 0,
    done_ends bigint not null default 0,
    primary key (job, key)
);

create or replace function eventcsv.open(p_name text)
returns table (version int, job int, header bytea)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select (select max(v.version) from eventcsv.schema_version v), j.number,
        (select l.line from eventcsv.line l where l.job = j.number order by l.segment, l.ends limit 1)
    from (select 1) one left join eventcsv.job j on j.name = p_name
$$;

create or replace function eventcsv.append(
    p_job int, p_id text, p_line bytea,
    p_key text default null, p_token bigint default null, p_done boolean default false)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_segment int;
    v_ends bigint;
    v_line bytea;
begin
    -- Each statement has to see what was committed before it, and COMMIT has to wait for the disk.
    if current_setting('transaction_isolation') <> 'read committed' or current_setting('fsync') <> 'on'
            or current_setting('full_page_writes') <> 'on' then
        raise exception 'needs fsync and full_page_writes on, and isolation read committed' using errcode = 'EV003';
    end if;
    if current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    if octet_length(p_line) > 1048576 or position('\x0a'::bytea in p_line) <> octet_length(p_line) then
        raise exception 'this is not one line' using errcode = 'EV003';
    end if;
    perform pg_advisory_xact_lock(1702257011, p_job);
    -- A retry of what is there writes, too, so that its COMMIT waits for the standbys as the first one's should have;
    -- a transaction that only reads would not.
    update eventcsv.line l set id = l.id where l.job = p_job and l.id = p_id
        returning l.line into v_line;
    if found then
        if v_line <> p_line then
            raise exception 'another event has the id %', p_id using errcode = 'EV003';
        end if;
        return;
    end if;
    if p_token is not null then
        perform 1 from eventcsv.claim c
            where c.job = p_job and c.key = p_key and c.token = p_token and c.until > '-infinity' for update;
        if not found then
            raise exception 'the claim was lost' using errcode = 'EV001';
        end if;
    end if;
    select l.segment, l.ends into v_segment, v_ends from eventcsv.line l
        where l.job = p_job order by l.segment desc, l.ends desc limit 1;
    if not found then
        raise exception 'there is no such job' using errcode = 'EV002';
    end if;
    v_ends := v_ends + octet_length(p_line);
    insert into eventcsv.line values (p_job, v_segment, v_ends, p_id, p_line);
    if p_done then
        update eventcsv.claim c set done_segment = v_segment, done_ends = v_ends, until = '-infinity'
            where c.job = p_job and c.key = p_key;
    end if;
end
$$;

create or replace function eventcsv.begin_segment(p_name text, p_segment int, p_header bytea)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_job int;
    v_last int;
begin
    insert into eventcsv.job (name) values (p_name) on conflict do nothing;
    select j.number into v_job from eventcsv.job j where j.name = p_name;
    perform pg_advisory_xact_lock(1702257011, v_job);
    select max(l.segment) into v_last from eventcsv.line l where l.job = v_job;
    if v_last >= p_segment then
        return false;
    end if;
    insert into eventcsv.line values (v_job, p_segment, octet_length(p_header), null, p_header);
    return true;
end
$$;

create or replace function eventcsv.store(
    p_name text, p_segment int, p_start bigint, p_ends bigint[], p_ids text[], p_lines bytea[])
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_job int;
    v_segment int;
    v_ends bigint;
begin
    insert into eventcsv.job (name) values (p_name) on conflict do nothing;
    select j.number into v_job from eventcsv.job j where j.name = p_name;
    perform pg_advisory_xact_lock(1702257011, v_job);
    select l.segment, l.ends into v_segment, v_ends from eventcsv.line l
        where l.job = v_job order by l.segment desc, l.ends desc limit 1;
    if v_segment = p_segment and v_ends = p_ends[cardinality(p_ends)] and p_lines = array(
            select l.line from eventcsv.line l
            where l.job = v_job and l.segment = p_segment and l.ends > p_start order by l.ends) then
        return;  -- a retry of what is there
    end if;
    if not ((v_segment is null or v_segment < p_segment) and p_start = 0
            or v_segment = p_segment and v_ends = p_start) then
        raise exception 'somebody else appends to this job' using errcode = 'EV001';
    end if;
    insert into eventcsv.line
        select v_job, p_segment, u.ends,
            case when u.id is null or exists (select 1 from eventcsv.line l where l.job = v_job and l.id = u.id)
                or row_number() over (partition by u.id order by u.ends) > 1 then null else u.id end, u.line
        from unnest(p_ends, p_ids, p_lines) as u (ends, id, line);
end
$$;

create or replace function eventcsv.remove_segment(p_job int, p_segment int)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    delete from eventcsv.line l where l.job = p_job and l.segment = p_segment
$$;

create or replace function eventcsv.claim(
    p_job int, p_key text, p_owner text, p_lease_s double precision, p_segment int, p_ends bigint)
returns table (token bigint, finished boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_token bigint;
    v_now timestamptz := clock_timestamp();
begin
    insert into eventcsv.claim as c (job, key, owner, token, until)
        values (p_job, p_key, p_owner, 1, v_now + make_interval(secs => p_lease_s))
        on conflict (job, key) do update
            set owner = excluded.owner, token = c.token + 1,
                until = clock_timestamp() + make_interval(secs => p_lease_s)
            where (c.until < clock_timestamp() or c.owner = excluded.owner)
                and (c.done_segment, c.done_ends) <= (p_segment, p_ends)
        returning c.token into v_token;
    return query select v_token, exists (
        select 1 from eventcsv.claim c where c.job = p_job and c.key = p_key and v_token is null
            and (c.done_segment, c.done_ends) > (p_segment, p_ends));
end
$$;

create or replace function eventcsv.renew(p_job int, p_keys text[], p_tokens bigint[], p_lease_s double precision)
returns setof text
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    -- A claim that a result has ended meanwhile stays so, and is told, too: nobody else has taken the PO over.
    update eventcsv.claim c set until = case when c.until = '-infinity' then c.until
            else clock_timestamp() + make_interval(secs => p_lease_s) end
        from unnest(p_keys, p_tokens) as u (key, token)
        where c.job = p_job and c.key = u.key and c.token = u.token
        returning c.key
$$;

create or replace function eventcsv.release(p_job int, p_key text, p_token bigint)
returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    update eventcsv.claim c set until = '-infinity' where c.job = p_job and c.key = p_key and c.token = p_token
$$;

create or replace function eventcsv.held(p_job int)
returns table (key text, owner text)
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select c.key, c.owner from eventcsv.claim c where c.job = p_job and c.until > clock_timestamp()
$$;

revoke all on all functions in schema eventcsv from public;
