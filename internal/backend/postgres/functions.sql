{{- /* A login of the administrator's never changes itself. */ -}}
{{define "itself"}}  IF _login = session_user THEN
    RAISE EXCEPTION USING ERRCODE = 'KT011', MESSAGE = format('login %I may not change itself', _login);
  END IF;{{end -}}
{{- /* Nothing but a verifier is taken. */ -}}
{{define "verifier"}}  IF _verifier IS NULL OR _verifier !~ '^SCRAM-SHA-256[$][1-9][0-9]{3,6}:[A-Za-z0-9+/]{22,86}={0,2}[$][A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$' THEN
    RAISE EXCEPTION USING ERRCODE = 'KT002', MESSAGE = 'what was sent is not a SCRAM-SHA-256 verifier';
  END IF;{{end -}}
{{- /* Locks the row of a login whose password is changed. */ -}}
{{define "single"}}  PERFORM FROM {{ident .Schema}}.managed m WHERE m.login = _login AND m.single FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one whose password Keyturn may change', _login);
  END IF;{{end -}}
{{- /* What the login's verifier is, as far as it is visible here; r is its row of pg_roles. */ -}}
{{define "stored"}}    IF has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT') THEN
      EXECUTE 'SELECT rolpassword FROM pg_catalog.pg_authid WHERE oid = $1' INTO _stored USING r.oid;
    END IF;{{end -}}
-- 6. The functions. Which version holds a login stands in the table; the comment
--    of the login is a copy for people.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.version() RETURNS int
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $keyturn$ SELECT {{.Version}} $keyturn$;

CREATE OR REPLACE FUNCTION {{ident .Schema}}.logins() RETURNS TABLE (login text, role text)
LANGUAGE sql STABLE {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
  SELECT m.login, m.role FROM {{ident .Schema}}.managed m ORDER BY 1
$keyturn$;

-- What a login may do, has and is; never its verifier.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.state(_login text) RETURNS jsonb
LANGUAGE plpgsql STABLE {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE _m record; r record; _password boolean; _scheme text; _held jsonb; _stored text;
BEGIN
  SELECT * INTO _m FROM {{ident .Schema}}.managed m WHERE m.login = _login;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  _held := jsonb_build_object('functions', {{.Version}}, 'login', _login,
    'holder', jsonb_build_object('credential', coalesce(_m.credential, ''), 'version', coalesce(_m.version, 0), 'ended', _m.ended));
  SELECT * INTO r FROM pg_roles WHERE rolname = _login;
  IF NOT FOUND THEN
    RETURN _held || jsonb_build_object('exists', false);
  END IF;
  IF has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT') THEN
    EXECUTE 'SELECT rolpassword IS NOT NULL, CASE WHEN rolpassword LIKE ''SCRAM-SHA-256$%'' THEN ''scram'' ELSE ''md5'' END, rolpassword
             FROM pg_catalog.pg_authid WHERE oid = $1' INTO _password, _scheme, _stored USING r.oid;
  END IF;
  IF _m.single THEN
    _held := _held || jsonb_build_object('single', true,
      'versions', (SELECT coalesce(jsonb_agg(jsonb_build_object('credential', h.credential, 'version', h.version, 'active', h.active,
          'ended', h.ended, 'same', h.verifier = _stored) ORDER BY h.credential, h.version), '[]')
        FROM {{ident .Schema}}.held h WHERE h.login = _login),
      'turns', (SELECT coalesce(jsonb_agg(jsonb_build_object('credential', t.credential, 'version', t.version,
          'began', to_char(t.began AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
          'since', to_char(t.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) ORDER BY t.id), '[]')
        FROM {{ident .Schema}}.turns t WHERE t.login = _login));
  END IF;
  RETURN _held || jsonb_build_object('exists', true, 'oid', r.oid::bigint, 'canlogin', r.rolcanlogin,
    'password', _password, 'scheme', CASE WHEN _password THEN _scheme END, 'limit', r.rolconnlimit, 'config', coalesce(to_jsonb(r.rolconfig), '[]'),
    'until', CASE WHEN coalesce(r.rolvaliduntil, 'infinity') IN ('infinity', '-infinity')
                  THEN coalesce(r.rolvaliduntil, 'infinity')::text
                  ELSE to_char(r.rolvaliduntil AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END,
    'expired', coalesce(r.rolvaliduntil <= clock_timestamp(), false),
    'attributes', to_jsonb(array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
      CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
      CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN NOT r.rolinherit THEN 'NOINHERIT' END], NULL)),
    'databases', (SELECT coalesce(jsonb_object_agg(d.datname, to_jsonb(s.setconfig)), '{}')
      FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE s.setrole = r.oid),
    'members', (SELECT coalesce(jsonb_agg(jsonb_build_object('role', g.rolname, 'admin', m.admin_option,
        'inherit', coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, r.rolinherit),
        'set', coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)) ORDER BY g.rolname), '[]')
      FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid),
    'owned', (SELECT count(*) FROM pg_shdepend d WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
      AND d.refobjid = r.oid AND d.classid <> 'pg_catalog.pg_auth_members'::regclass));
END $keyturn$;

CREATE OR REPLACE FUNCTION {{ident .Schema}}.sessions(_login text)
RETURNS TABLE (pid int, application text, client text, database text, since timestamptz)
LANGUAGE plpgsql STABLE {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
BEGIN
  IF NOT EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = _login) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  RETURN QUERY SELECT a.pid, a.application_name, host(a.client_addr), a.datname::text, a.backend_start
    FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolname = _login;
END $keyturn$;

-- The lines of pg_hba.conf that let the login in and not all whose turn comes
-- after it: by its name, by a regular expression (from PostgreSQL 16 on), or by
-- the name of a database ("sameuser"). A name behind + means members of it.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.hba(_login text) RETURNS TABLE (number int, databases text[], users text[])
LANGUAGE plpgsql STABLE {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE _next text[];
BEGIN
  SELECT array_agg(m.login) INTO _next FROM {{ident .Schema}}.managed m WHERE m.role = _login AND m.login <> _login;
  IF _next IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('no login takes turns for %I', _login);
  END IF;
  RETURN QUERY SELECT h.line_number, h.database, h.user_name FROM pg_hba_file_rules() h
    WHERE h.error IS NULL AND (
      EXISTS (SELECT FROM unnest(h.user_name) u WHERE u = _login OR left(u, 1) = '/' AND _login ~ substr(u, 2))
      AND EXISTS (SELECT FROM unnest(_next) n WHERE NOT EXISTS (SELECT FROM unnest(h.user_name) u
        WHERE u IN (n, 'all', '+' || _login) OR left(u, 1) = '/' AND n ~ substr(u, 2)))
      OR 'sameuser' = ANY (h.database) AND EXISTS (SELECT FROM pg_database d WHERE d.datname = _login)
      AND EXISTS (SELECT FROM unnest(h.user_name) u WHERE u IN (_login, 'all') OR left(u, 1) IN ('+', '/')))
    ORDER BY h.line_number;
END $keyturn$;

-- Lets a version log in until a time, by a verifier. The lock on its row makes
-- arming and ending of one login wait for each other; the row says which version
-- holds it, and keeps a version that was ended from coming back late.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.arm(_login text, _verifier text, _until timestamptz, _credential text, _version int)
RETURNS void LANGUAGE plpgsql {{.Security}}
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' SET timezone = 'UTC' AS $keyturn$
DECLARE _m record; r record; _sessions bigint; _code text; _why text;
BEGIN
{{template "itself" .}}
  SELECT * INTO _m FROM {{ident .Schema}}.managed m WHERE m.login = _login AND m.role <> m.login FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may arm', _login);
  END IF;
{{template "verifier" .}}
  IF _credential IS NULL OR _version IS NULL OR _version < 1 OR _until <= clock_timestamp() THEN
    RAISE EXCEPTION USING ERRCODE = 'KT007', MESSAGE = 'arming needs a credential, a version and a time to come';
  END IF;
  IF _m.credential = _credential AND _m.version >= _version AND _m.ended THEN
    RAISE EXCEPTION USING ERRCODE = 'KT008', MESSAGE = format('version %s was ended on %I already: its number is burnt', _version, _login);
  END IF;
  SELECT oid, rolcanlogin INTO r FROM pg_roles WHERE rolname = _login;
  IF r.rolcanlogin AND (_m.credential = _credential AND _m.version = _version) IS NOT TRUE THEN
    RAISE EXCEPTION USING ERRCODE = 'KT003', MESSAGE = format('login %I may log in already, for another', _login);
  END IF;
  SELECT count(*) INTO _sessions FROM pg_stat_activity WHERE usesysid = r.oid;
  IF NOT r.rolcanlogin AND _sessions > 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'KT004', MESSAGE = format('login %I still has %s sessions', _login, _sessions);
  END IF;
  BEGIN
    -- What waits for somebody else's ALTER ROLE is this one: a server that logs
    -- lock waits logs the statement that waits, and the next holds the verifier.
    EXECUTE format('ALTER ROLE %I VALID UNTIL %L', _login, coalesce(_until, 'infinity'));
    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', _login, _verifier);
  EXCEPTION WHEN query_canceled OR others THEN -- not passed on as it is: its context holds the verifier
    GET STACKED DIAGNOSTICS _code = RETURNED_SQLSTATE, _why = MESSAGE_TEXT;
    RAISE EXCEPTION USING ERRCODE = _code, MESSAGE = format('arming %I: %s', _login, _why);
  END;
  UPDATE {{ident .Schema}}.managed m SET credential = _credential, version = _version, ended = false WHERE m.login = _login;
  EXECUTE format('COMMENT ON ROLE %I IS %L', _login, format('keyturn:{"credential":%s,"version":%s}', to_json(_credential), _version));
END $keyturn$;

-- Sets or lifts (NULL) the end of a version's validity.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.expire(_login text, _until timestamptz, _credential text, _version int)
RETURNS void LANGUAGE plpgsql {{.Security}}
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' SET timezone = 'UTC' AS $keyturn$
DECLARE _m record;
BEGIN
{{template "itself" .}}
  SELECT * INTO _m FROM {{ident .Schema}}.managed m WHERE m.login = _login FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  IF _m.ended OR _m.role <> _login AND (_m.credential = _credential AND _m.version = _version) IS NOT TRUE
     OR NOT EXISTS (SELECT FROM pg_roles WHERE rolname = _login AND rolcanlogin) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT005', MESSAGE = format('login %I is not armed for version %s', _login, _version);
  END IF;
  EXECUTE format('ALTER ROLE %I VALID UNTIL %L', _login, coalesce(_until, 'infinity'));
END $keyturn$;

-- Disarms three ways, for good. Returns false if the login belongs to another
-- version. A login that is gone is ended too, and its number stays burnt.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.disarm(_login text, _credential text, _version int)
RETURNS boolean LANGUAGE plpgsql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE _m record; _may boolean;
BEGIN
{{template "itself" .}}
  SELECT * INTO _m FROM {{ident .Schema}}.managed m WHERE m.login = _login FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  SELECT rolcanlogin INTO _may FROM pg_roles WHERE rolname = _login; -- NULL: there is no such role
  IF _m.role <> _login AND (_m.credential = _credential AND _m.version = _version) IS NOT TRUE THEN
    IF _may AND _m.credential IS NULL THEN -- it may be this version's: the row was written anew
      RAISE EXCEPTION USING ERRCODE = 'KT009', MESSAGE = format('login %I may log in, and nobody knows for which version', _login);
    END IF;
    IF _may OR _m.credential = _credential AND _m.version > _version THEN
      RETURN false;
    END IF;
  END IF;
  UPDATE {{ident .Schema}}.managed m SET credential = _credential, version = _version, ended = true WHERE m.login = _login;
  IF _may IS NULL THEN
    RETURN true;
  END IF;
  EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL VALID UNTIL %L', _login, '-infinity');
  IF _m.role <> _login THEN
    EXECUTE format('COMMENT ON ROLE %I IS %L', _login,
      format('keyturn:{"credential":%s,"version":%s,"ended":true}', to_json(_credential), _version));
  END IF;
  RETURN true;
END $keyturn$;

-- Ends the sessions of a login that may not log in any more; returns how many were told to.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.kill(_login text) RETURNS bigint
LANGUAGE plpgsql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE _killed bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = _login) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  IF (SELECT rolcanlogin FROM pg_roles WHERE rolname = _login) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT006', MESSAGE = format('login %I may still log in: disarm it first', _login);
  END IF;
  SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) INTO _killed
    FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolname = _login;
  RETURN _killed;
END $keyturn$;


-- One login whose password is changed (strategy: single-role). The verifiers of
-- the version in use, of the next one and, until its end, of the one before stand
-- in a table that the owner alone may read; one of them is the login's.

-- Keeps a version ready to be activated. What the login has until then, and no
-- version of Keyturn's is, was there before: it is version 1.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.stage(_login text, _verifier text, _credential text, _version int)
RETURNS void LANGUAGE plpgsql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE r record; _v record; _stored text; _code text; _why text;
BEGIN
{{template "single" .}}
{{template "verifier" .}}
  IF _credential IS NULL OR _version IS NULL OR _version < 1 THEN
    RAISE EXCEPTION USING ERRCODE = 'KT007', MESSAGE = 'staging needs a credential and a version';
  END IF;
  IF EXISTS (SELECT FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.credential = _credential AND h.version >= _version AND h.ended) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT008', MESSAGE = format('version %s or a later one was ended on %I already: its number is burnt', _version, _login);
  END IF;
  SELECT h.* INTO r FROM {{ident .Schema}}.held h WHERE h.login = _login AND NOT h.ended
    AND (h.credential <> _credential OR NOT h.active AND h.version <> _version) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT003', MESSAGE = format('login %I is held by version %s of %s, which is not ended', _login, r.version, r.credential);
  END IF;
  SELECT oid, rolcanlogin INTO r FROM pg_roles WHERE rolname = _login;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I does not exist', _login);
  END IF;
  IF r.rolcanlogin AND NOT EXISTS (SELECT FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.active) THEN
    IF _version = 1 THEN
      RAISE EXCEPTION USING ERRCODE = 'KT003', MESSAGE = format('login %I may log in already, and no version of it was adopted', _login);
    ELSIF EXISTS (SELECT FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.credential = _credential AND h.version = 1) THEN
      RAISE EXCEPTION USING ERRCODE = 'KT009', MESSAGE = format('login %I may log in, and nobody knows for which version', _login);
    END IF;
{{template "stored" .}}
    IF _stored IS NULL THEN
      RAISE EXCEPTION USING ERRCODE = 'KT010', MESSAGE = format('the verifier of %I cannot be read (pg_authid): there would be no way back to it', _login);
    END IF;
    INSERT INTO {{ident .Schema}}.held (login, credential, version, verifier, active) VALUES (_login, _credential, 1, _stored, true);
    INSERT INTO {{ident .Schema}}.turns (login, credential, version, began, since) VALUES (_login, _credential, 1, '0001-01-01 UTC', '0001-01-01 UTC');
  END IF;
  SELECT h.* INTO _v FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.credential = _credential AND h.version = _version;
  IF FOUND AND _v.active THEN
    BEGIN
      EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', _login, _verifier);
    EXCEPTION WHEN query_canceled OR others THEN -- not passed on as it is: its context holds the verifier
      GET STACKED DIAGNOSTICS _code = RETURNED_SQLSTATE, _why = MESSAGE_TEXT;
      RAISE EXCEPTION USING ERRCODE = _code, MESSAGE = format('staging on %I: %s', _login, _why);
    END;
  END IF;
  INSERT INTO {{ident .Schema}}.held AS h (login, credential, version, verifier) VALUES (_login, _credential, _version, _verifier)
    ON CONFLICT (login, credential, version) DO UPDATE SET verifier = excluded.verifier;
END $keyturn$;

-- Makes a version the one whose password the login has. That of the one before is
-- refused from the commit on. activated() says afterwards that every host knows.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.activate(_login text, _credential text, _version int)
RETURNS void LANGUAGE plpgsql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE r record; _v record; _stored text; _code text; _why text;
BEGIN
{{template "single" .}}
  SELECT h.* INTO _v FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.credential = _credential AND h.version = _version;
  IF NOT FOUND THEN
    IF _version = 1 AND NOT EXISTS (SELECT FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.active) THEN
      RETURN; -- what was there before, and nothing else was ever activated
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'KT005', MESSAGE = format('version %s is not staged on %I', _version, _login);
  ELSIF _v.ended THEN
    RAISE EXCEPTION USING ERRCODE = 'KT008', MESSAGE = format('version %s was ended on %I already', _version, _login);
  END IF;
  SELECT oid, rolcanlogin, rolvaliduntil INTO r FROM pg_roles WHERE rolname = _login;
  IF _v.active AND r.rolcanlogin THEN
{{template "stored" .}}
    IF coalesce(_stored = _v.verifier, true) THEN
      RETURN;
    END IF;
  END IF;
  INSERT INTO {{ident .Schema}}.turns (login, credential, version, began) VALUES (_login, _credential, _version, clock_timestamp());
  UPDATE {{ident .Schema}}.held h SET active = h.credential = _credential AND h.version = _version WHERE h.login = _login;
  BEGIN
    IF r.rolvaliduntil = '-infinity' THEN -- an end of ours
      EXECUTE format('ALTER ROLE %I VALID UNTIL %L', _login, 'infinity');
    ELSE -- waits, where another alters the role, before the verifier is in a statement
      EXECUTE format('ALTER ROLE %I LOGIN', _login);
    END IF;
    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', _login, _v.verifier);
  EXCEPTION WHEN query_canceled OR others THEN
    GET STACKED DIAGNOSTICS _code = RETURNED_SQLSTATE, _why = MESSAGE_TEXT;
    RAISE EXCEPTION USING ERRCODE = _code, MESSAGE = format('activating %I: %s', _login, _why);
  END;
END $keyturn$;

-- Ends the time in which a session may be of the version before or of the new one.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.activated(_login text)
RETURNS void LANGUAGE sql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
  UPDATE {{ident .Schema}}.turns t SET since = clock_timestamp() WHERE t.login = _login AND t.since IS NULL
$keyturn$;

-- Forgets the verifier of a version, for good; of the one in use, the login too is
-- disarmed three ways.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.unstage(_login text, _credential text, _version int)
RETURNS void LANGUAGE plpgsql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE _active boolean; _before boolean;
BEGIN
{{template "single" .}}
  SELECT h.active INTO _active FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.credential = _credential AND h.version = _version;
  _before := NOT FOUND AND _version = 1 AND NOT EXISTS (SELECT FROM {{ident .Schema}}.held h WHERE h.login = _login AND h.active);
  IF (_active OR _before) AND EXISTS (SELECT FROM pg_roles WHERE rolname = _login) THEN
    EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL VALID UNTIL %L', _login, '-infinity');
  END IF;
  IF _before THEN
    INSERT INTO {{ident .Schema}}.turns (login, credential, version, began, since) VALUES (_login, _credential, _version, '0001-01-01 UTC', '0001-01-01 UTC');
  END IF;
  INSERT INTO {{ident .Schema}}.held AS h (login, credential, version, ended) VALUES (_login, _credential, _version, true)
    ON CONFLICT (login, credential, version) DO UPDATE SET ended = true, active = false, verifier = NULL;
END $keyturn$;

-- Ends one session of such a login, the one that began then; says whether it was told to.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.cut(_login text, _pid int, _since timestamptz) RETURNS boolean
LANGUAGE plpgsql {{.Security}} SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE _told boolean;
BEGIN
  IF NOT EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = _login AND m.single) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one whose password Keyturn may change', _login);
  END IF;
  SELECT pg_terminate_backend(a.pid) INTO _told FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
    WHERE r.rolname = _login AND a.pid = _pid AND a.backend_start = _since;
  RETURN coalesce(_told, false);
END $keyturn$;
