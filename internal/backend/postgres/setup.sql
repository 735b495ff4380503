-- Set-up of Keyturn for the role {{.Role}}{{with .Credential}} (credential {{.}}){{end}}, to be read before it is run.
-- Run it in database {{.Database}} as a superuser (or as the administrator of a
-- managed service), in one piece:  psql -X -v ON_ERROR_STOP=1 -d {{.Database}} -f setup.sql
-- It may be run again at any time: what is there already stays, and the
-- settings of the logins are copied from the role anew. No password is in it.
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;

-- 1. What must be true before anything is made.
DO $keyturn$
BEGIN
  IF current_database() <> {{lit .Database}} THEN
    RAISE EXCEPTION 'this is database %, and the script is for {{.Database}}', current_database();
  END IF;
  IF current_setting('server_version_num')::int < 120000 THEN
    RAISE EXCEPTION 'PostgreSQL 12 or later is needed';
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Role}} AND (rolsuper OR rolcreaterole OR rolreplication OR oid < 16384)) THEN
    RAISE EXCEPTION 'role {{.Role}} is a superuser, has CREATEROLE or REPLICATION, or belongs to PostgreSQL: give its tables to a plain role first';
  END IF;
  IF EXISTS (SELECT FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
             WHERE n.nspname = {{lit .Schema}} AND r.rolname <> {{lit .Owner}}) THEN
    RAISE EXCEPTION 'schema {{.Schema}} exists and belongs to somebody else';
  END IF;
END $keyturn$;

-- 2. The owner of the functions: nobody logs in as it, and nobody is a member.
--    CREATEROLE lets it change logins that are no superusers (from PostgreSQL 16 on
--    only those that it has ADMIN on), so that nothing here runs as a superuser.
DO $keyturn$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Owner}}) THEN
    CREATE ROLE {{ident .Owner}} NOLOGIN CREATEROLE;
  END IF;
  GRANT pg_signal_backend, pg_read_all_stats TO {{ident .Owner}};
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('GRANT %I TO %I', {{lit .Owner}}, current_user); -- taken back in 7
  END IF;
  BEGIN
    GRANT SELECT (oid, rolpassword) ON pg_authid TO {{ident .Owner}}; -- whether there is a password
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'pg_authid cannot be read here: that a password is gone will be proved by the login alone';
  END;
END $keyturn$;

-- 3. The administrator, who may call the functions and nothing else. Give it a
--    password afterwards:  \password {{.Admin}}
DO $keyturn$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Admin}}) THEN
    CREATE ROLE {{ident .Admin}} LOGIN;
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), {{lit .Admin}});
  -- Verifiers travel as parameters: keep parameters out of the server's log and statistics.
  BEGIN
    IF current_setting('server_version_num')::int >= 130000 THEN
      ALTER ROLE {{ident .Admin}} SET log_parameter_max_length = 0;
    END IF;
    ALTER ROLE {{ident .Admin}} SET auto_explain.log_min_duration = -1;
    ALTER ROLE {{ident .Admin}} SET pg_stat_statements.track = 'none';
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'the log of {{.Admin}} cannot be kept free of parameters here: with log_statement = all the server logs SCRAM verifiers';
  END;
  IF current_setting('server_version_num')::int >= 150000 THEN
    BEGIN
      EXECUTE 'GRANT SET ON PARAMETER {{.Silenced}} TO ' || {{lit (ident .Admin)}};
    EXCEPTION WHEN insufficient_privilege THEN
      NULL; -- managed services; log_parameter_max_length is enough
    END;
  END IF;
END $keyturn$;

-- 4. The role, and the logins that take turns: members of it, who act as it.
--    A login that services use today stays as it is and becomes the role.
DO $keyturn$
DECLARE
  _login text;
  _member text := CASE WHEN current_setting('server_version_num')::int >= 160000
                       THEN 'GRANT %I TO %I WITH INHERIT TRUE, SET TRUE' ELSE 'GRANT %I TO %I' END;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Role}}) THEN
    CREATE ROLE {{ident .Role}} NOLOGIN; -- grant it what the application needs
  END IF;
  FOREACH _login IN ARRAY {{array .Logins}} LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = _login) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN INHERIT PASSWORD NULL VALID UNTIL %L', _login, '-infinity');
    ELSIF (SELECT rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = _login) THEN
      RAISE EXCEPTION 'login % exists and has more rights than a login of Keyturn may have', _login;
    ELSIF (SELECT rolcanlogin AND coalesce(shobj_description(oid, 'pg_authid'), '') NOT LIKE 'keyturn:%'
           FROM pg_roles WHERE rolname = _login) THEN
      RAISE EXCEPTION 'login % exists, may log in, and was not armed by Keyturn: choose other names by logins', _login;
    END IF;
    EXECUTE format(_member, {{lit .Role}}, _login);
  END LOOP;
END $keyturn$;

--    Settings and limits: those of the role, per database too, and SET role.
DO $keyturn$
DECLARE
  _login text; _role oid; _cmd text; _target text; r record;
BEGIN
  SELECT oid INTO _role FROM pg_roles WHERE rolname = {{lit .Role}};
  FOREACH _login IN ARRAY {{array .Logins}} LOOP
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', _login, (SELECT rolconnlimit FROM pg_roles WHERE oid = _role));
    FOR r IN SELECT d.datname FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
             WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = _login) LOOP
      EXECUTE format('ALTER ROLE %I %s RESET ALL', _login, coalesce('IN DATABASE ' || quote_ident(r.datname), ''));
    END LOOP;
    FOR r IN SELECT d.datname, split_part(c, '=', 1) AS key, substr(c, strpos(c, '=') + 1) AS value
             FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
             WHERE s.setrole = _role AND split_part(c, '=', 1) NOT IN ('role', 'session_authorization') LOOP
      _target := format('ALTER ROLE %I %s SET ', _login, coalesce('IN DATABASE ' || quote_ident(r.datname), ''))
        || (SELECT string_agg(quote_ident(part), '.' ORDER BY n) FROM unnest(string_to_array(r.key, '.')) WITH ORDINALITY AS p(part, n));
      IF r.key IN ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') THEN
        -- Lists: taken over as they are, never put into the text of a statement.
        _cmd := _target || ' FROM CURRENT';
        PERFORM set_config(r.key, r.value, true);
        EXECUTE _cmd;
        SET LOCAL search_path = pg_catalog, pg_temp;
      ELSE
        EXECUTE _target || ' = ' || quote_literal(r.value);
      END IF;
    END LOOP;
    EXECUTE format('ALTER ROLE %I SET role = %L', _login, {{lit .Role}});
  END LOOP;
END $keyturn$;

-- 5. Which logins the functions may touch. A role that may log in itself is the
--    adopted one: it may be ended, and is never armed.
CREATE SCHEMA IF NOT EXISTS {{ident .Schema}} AUTHORIZATION {{ident .Owner}};
REVOKE ALL ON SCHEMA {{ident .Schema}} FROM PUBLIC;
CREATE TABLE IF NOT EXISTS {{ident .Schema}}.managed (login text PRIMARY KEY, role text NOT NULL);
ALTER TABLE {{ident .Schema}}.managed OWNER TO {{ident .Owner}};
REVOKE ALL ON {{ident .Schema}}.managed FROM PUBLIC;
INSERT INTO {{ident .Schema}}.managed (login, role)
  SELECT l, {{lit .Role}} FROM unnest({{array .Logins}}) l
  UNION ALL SELECT rolname, rolname FROM pg_roles WHERE rolname = {{lit .Role}} AND rolcanlogin
  ON CONFLICT (login) DO UPDATE SET role = excluded.role;
DO $keyturn$
DECLARE _login text;
BEGIN
  IF current_setting('server_version_num')::int >= 160000 THEN
    FOR _login IN SELECT m.login FROM {{ident .Schema}}.managed m WHERE m.role = {{lit .Role}} LOOP
      EXECUTE format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', _login, {{lit .Owner}});
    END LOOP;
  END IF;
END $keyturn$;

-- 6. The functions.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.version() RETURNS int
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $keyturn$ SELECT {{.Version}} $keyturn$;

CREATE OR REPLACE FUNCTION {{ident .Schema}}.logins() RETURNS TABLE (login text, role text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $keyturn$
  SELECT m.login, m.role FROM {{ident .Schema}}.managed m ORDER BY 1
$keyturn$;

-- What a login may do, has and is; never its verifier.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.state(_login text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE r record; _password boolean; _scheme text;
BEGIN
  IF NOT EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = _login) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  SELECT * INTO r FROM pg_roles WHERE rolname = _login;
  IF NOT FOUND THEN
    RETURN jsonb_build_object('login', _login, 'exists', false);
  END IF;
  IF has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT') THEN
    EXECUTE 'SELECT rolpassword IS NOT NULL, CASE WHEN rolpassword LIKE ''SCRAM-SHA-256$%'' THEN ''scram'' ELSE ''md5'' END
             FROM pg_catalog.pg_authid WHERE oid = $1' INTO _password, _scheme USING r.oid;
  END IF;
  RETURN jsonb_build_object('login', _login, 'exists', true, 'oid', r.oid::bigint, 'canlogin', r.rolcanlogin,
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
      AND d.refobjid = r.oid AND d.classid <> 'pg_catalog.pg_auth_members'::regclass),
    'comment', coalesce(shobj_description(r.oid, 'pg_authid'), ''));
END $keyturn$;

CREATE OR REPLACE FUNCTION {{ident .Schema}}.sessions(_login text)
RETURNS TABLE (pid int, application text, client text, database text, since timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $keyturn$
BEGIN
  IF NOT EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = _login) THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  RETURN QUERY SELECT a.pid, a.application_name, host(a.client_addr), a.datname::text, a.backend_start
    FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolname = _login;
END $keyturn$;

-- Lets a version log in until a time, by a verifier. The lock on its row makes
-- arming and ending of one login wait for each other; the comment says which
-- version holds it, and keeps a version that was ended from coming back late.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.arm(_login text, _verifier text, _until timestamptz, _credential text, _version int)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' SET timezone = 'UTC' AS $keyturn$
DECLARE r record; _mine text; _held jsonb; _sessions bigint; _code text; _why text;
BEGIN
  PERFORM FROM {{ident .Schema}}.managed m WHERE m.login = _login AND m.role <> m.login FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may arm', _login);
  END IF;
  IF _verifier IS NULL OR _verifier !~ '^SCRAM-SHA-256\$[1-9][0-9]{3,6}:[A-Za-z0-9+/]{22,86}={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$' THEN
    RAISE EXCEPTION USING ERRCODE = 'KT002', MESSAGE = 'what was sent is not a SCRAM-SHA-256 verifier';
  END IF;
  IF _credential IS NULL OR _version IS NULL OR _version < 1 OR _until <= clock_timestamp() THEN
    RAISE EXCEPTION USING ERRCODE = 'KT007', MESSAGE = 'arming needs a credential, a version and a time to come';
  END IF;
  SELECT oid, rolcanlogin, coalesce(shobj_description(oid, 'pg_authid'), '') AS comment INTO r FROM pg_roles WHERE rolname = _login;
  _mine := format('keyturn:{"credential":%s,"version":%s}', to_json(_credential), _version);
  BEGIN
    _held := CASE WHEN r.comment LIKE 'keyturn:{%' THEN substr(r.comment, 9)::jsonb END;
  EXCEPTION WHEN others THEN _held := NULL;
  END;
  IF _held ->> 'credential' = _credential AND (_held ->> 'version')::int >= _version AND _held ? 'ended' THEN
    RAISE EXCEPTION USING ERRCODE = 'KT008', MESSAGE = format('version %s was ended on %I already: its number is burnt', _version, _login);
  END IF;
  IF r.rolcanlogin AND r.comment <> _mine THEN
    RAISE EXCEPTION USING ERRCODE = 'KT003', MESSAGE = format('login %I may log in already, for another', _login);
  END IF;
  SELECT count(*) INTO _sessions FROM pg_stat_activity WHERE usesysid = r.oid;
  IF NOT r.rolcanlogin AND _sessions > 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'KT004', MESSAGE = format('login %I still has %s sessions', _login, _sessions);
  END IF;
  BEGIN
    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L VALID UNTIL %L', _login, _verifier, coalesce(_until, 'infinity'));
    EXECUTE format('COMMENT ON ROLE %I IS %L', _login, _mine);
  EXCEPTION WHEN others THEN -- not passed on as it is: its context holds the verifier
    GET STACKED DIAGNOSTICS _code = RETURNED_SQLSTATE, _why = MESSAGE_TEXT;
    RAISE EXCEPTION USING ERRCODE = _code, MESSAGE = format('arming %I: %s', _login, _why);
  END;
END $keyturn$;

-- Sets or lifts (NULL) the end of a version's validity.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.expire(_login text, _until timestamptz, _credential text, _version int)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' SET timezone = 'UTC' AS $keyturn$
DECLARE r record; _role text;
BEGIN
  SELECT m.role INTO _role FROM {{ident .Schema}}.managed m WHERE m.login = _login FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  SELECT rolcanlogin, coalesce(shobj_description(oid, 'pg_authid'), '') AS comment INTO r FROM pg_roles WHERE rolname = _login;
  IF _role <> _login AND r.comment <> format('keyturn:{"credential":%s,"version":%s}', to_json(_credential), _version)
     OR NOT r.rolcanlogin THEN
    RAISE EXCEPTION USING ERRCODE = 'KT005', MESSAGE = format('login %I is not armed for version %s', _login, _version);
  END IF;
  EXECUTE format('ALTER ROLE %I VALID UNTIL %L', _login, coalesce(_until, 'infinity'));
END $keyturn$;

-- Disarms three ways, for good. Returns false if the login belongs to another version.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.disarm(_login text, _credential text, _version int)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $keyturn$
DECLARE r record; _role text; _held jsonb;
BEGIN
  SELECT m.role INTO _role FROM {{ident .Schema}}.managed m WHERE m.login = _login FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = 'KT001', MESSAGE = format('login %I is not one that Keyturn may touch', _login);
  END IF;
  SELECT rolcanlogin, coalesce(shobj_description(oid, 'pg_authid'), '') AS comment INTO r FROM pg_roles WHERE rolname = _login;
  IF _role <> _login THEN
    BEGIN
      _held := CASE WHEN r.comment LIKE 'keyturn:{%' THEN substr(r.comment, 9)::jsonb END;
    EXCEPTION WHEN others THEN _held := NULL;
    END;
    IF (_held ->> 'credential' = _credential AND (_held ->> 'version')::int = _version) IS NOT TRUE
       AND (r.rolcanlogin OR (_held ->> 'credential' = _credential AND (_held ->> 'version')::int > _version)) THEN
      RETURN false;
    END IF;
  END IF;
  EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL VALID UNTIL %L', _login, '-infinity');
  IF _role <> _login THEN
    EXECUTE format('COMMENT ON ROLE %I IS %L', _login,
      format('keyturn:{"credential":%s,"version":%s,"ended":true}', to_json(_credential), _version));
  END IF;
  RETURN true;
END $keyturn$;

-- Ends the sessions of a login that may not log in any more; returns how many were told to.
CREATE OR REPLACE FUNCTION {{ident .Schema}}.kill(_login text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $keyturn$
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

DO $keyturn$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = {{lit .Schema}}) LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', f, {{lit .Owner}});
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f, {{lit .Admin}});
  END LOOP;
END $keyturn$;
GRANT USAGE ON SCHEMA {{ident .Schema}} TO {{ident .Admin}};

-- 7. A managed service's administrator leaves the owner again.
DO $keyturn$
BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('REVOKE %I FROM %I', {{lit .Owner}}, current_user);
  END IF;
END $keyturn$;
COMMIT;

-- Lines of pg_hba.conf that name {{.Role}} must name its logins too, or +{{.Role}}
-- (every member of it); the administrator needs a line of its own, for instance
--   hostssl {{.Database}} {{.Admin}} samehost scram-sha-256
