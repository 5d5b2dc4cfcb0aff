-- Ten years of a large site: 60 machines, 300 people, 20,000 experiments at 1,000,000 runs.
-- `:runs` is the number of runs. The other tables follow from it. Executed by bench/large_site.py, one transaction.
-- Every INSERT names its columns, so a newer column needs a default in the database.

SELECT setseed(0.5);

INSERT INTO auth_group (name) SELECT 'group' || i FROM generate_series(1, 10) i;

INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff, is_active, date_joined)
SELECT 'person' || lpad(i::text, 3, '0'), '!', 'First' || i, 'Last' || i, 'person' || i || '@example.org',
       i = 1, i <= 3, true, now() - interval '10 years'
FROM generate_series(1, 300) i;

INSERT INTO auth_user_groups (user_id, group_id)
SELECT u.id, g.id FROM auth_user u JOIN auth_group g ON (u.id + g.id) % 5 = 0;

-- Two profiles of each machine. The runs of four profiles are hidden from most people.
INSERT INTO profiles_runnerprofile
       (name, enabled, description, runner_type, module_loader_type, modules, ssh_host, ssh_user, allowed_hosts,
        allowed_users, venv_roots)
SELECT 'MACHINE' || lpad(i::text, 2, '0') || kind, i < 55, 'For the machine ' || i, 'SSH', 'NO_MODULE', '',
       'login' || i || '.example.org', '', '', '{username}', ''
FROM generate_series(1, 60) i, unnest(ARRAY['', '_TEST']) kind;

INSERT INTO profiles_runnerprofile_view_groups (runnerprofile_id, group_id)
SELECT p.id, g.id FROM profiles_runnerprofile p, auth_group g WHERE p.name LIKE 'MACHINE0%\_TEST' AND g.name = 'group1';

INSERT INTO profiles_accountmap (person, accounts)
SELECT 'person' || lpad(i::text, 3, '0'), 'acc' || lpad(i::text, 6, '0') FROM generate_series(1, 300) i;

INSERT INTO profiles_usersettings (user_id, preferred_username, created, modified)
SELECT id, 'acc' || id, now(), now() FROM auth_user WHERE username LIKE 'person%';

-- The number n of a run is its age: 1 is the oldest. Most runs belong to few experiments, people and machines.
-- The number of runs per year grows.
CREATE TEMPORARY TABLE run AS
SELECT n, experiment, 'x' || lpad(to_hex(experiment), 4, '0') AS expid,
       1 + (experiment * 7919 % 300 * (experiment * 31 % 300)) / 300 AS person,
       1 + (experiment * 104729 % 60 * (n % 7 + experiment % 54)) / 60 % 60 AS machine,
       now() - interval '10 years' * (1 - sqrt(n / (:runs + 1)::float)) AS created,
       exp(4 + 8 * random()) * interval '1 second' AS lasted,
       random() AS luck
FROM (SELECT n, (greatest(100, :runs / 50) * power(random(), 2))::int AS experiment FROM generate_series(1, :runs) n) x;

-- 400 active runs, one of each experiment. Some are older than most of the ended runs.
CREATE TEMPORARY TABLE active AS
SELECT max(n) AS n FROM run WHERE n > :runs - least(20000, :runs / 4) OR n % 1000 = 0 GROUP BY expid
ORDER BY max(n) % 97, max(n) DESC LIMIT least(400, :runs / 50 + 1);

CREATE TEMPORARY TABLE state AS
SELECT run.*, 'person' || lpad(person::text, 3, '0') AS starter, 'acc' || lpad(person::text, 6, '0') AS account,
       'login' || machine || '.example.org' AS host,
       'MACHINE' || lpad(machine::text, 2, '0') || CASE WHEN n % 5 = 0 THEN '_TEST' ELSE '' END AS profile,
       CASE WHEN machine % 20 = 0 THEN 'acc' || lpad(person::text, 6, '0') || '@login' || machine ELSE 'default' END
         AS installation,
       CASE WHEN active.n IS NOT NULL THEN 'ACTIVE' WHEN luck < 0.7 THEN 'COMPLETED' ELSE 'TERMINATED' END AS status,
       CASE WHEN active.n IS NOT NULL OR luck < 0.7 THEN '' WHEN luck < 0.88 THEN 'failed' WHEN luck < 0.95 THEN 'stopped'
            WHEN luck < 0.97 THEN 'killed' WHEN luck < 0.99 THEN 'lost' WHEN luck < 0.9995 THEN 'never_started'
            ELSE 'abandoned' END AS reason
FROM run LEFT JOIN active USING (n);

INSERT INTO runners_runnerrun
       (key, expid, profile_name, profile_id, config, runner, module_loader, modules, status, reason, exit_code, signal,
        detail, pid, identity, host, "user", created, modified, finished, confirmed_at, reachable, unreachable_detail,
        started_by, stopped_by, stop_requested_at, stop_steps, stop_owner, jobs, superseded, installation, machine,
        log_size, log_too_large, silent_since)
SELECT md5(n::text || 'run'), expid, profile, p.id,
       jsonb_build_object('runner_type', 'SSH', 'module_loader_type', 'NO_MODULE', 'modules', '[]'::jsonb, 'ssh',
         jsonb_build_object('host', host, 'port', 22, 'user', account), 'installation', state.installation, 'profile_id', p.id),
       'SSH', 'NO_MODULE', '', status, reason,
       CASE WHEN status = 'COMPLETED' THEN 0 WHEN reason IN ('failed', 'stopped') THEN 1 WHEN reason = 'killed' THEN 137 END,
       CASE WHEN reason = 'killed' THEN 'SIGKILL' ELSE '' END,
       CASE WHEN reason = 'failed' THEN '[CRITICAL] Trace: job ' || n % 977 || '_SIM of ' || expid || ' failed on '
         || host || E'\nMore details on the log of the experiment' ELSE '' END,
       1000 + n % 30000,
       jsonb_build_object('host', host, 'boot', md5(machine::text), 'pid', 1000 + n % 30000, 'started', n),
       host, account, created, created + lasted, CASE WHEN status <> 'ACTIVE' THEN least(created + lasted, now()) END,
       least(created + lasted, now()), NOT (status = 'ACTIVE' AND machine % 12 = 0),
       CASE WHEN status = 'ACTIVE' AND machine % 12 = 0 THEN 'No route to host' ELSE '' END,
       starter, CASE WHEN reason = 'stopped' THEN starter ELSE '' END,
       CASE WHEN reason = 'stopped' THEN created + lasted END, '[]', '',
       CASE WHEN reason IN ('', 'failed') AND status <> 'ACTIVE' THEN jsonb_build_object('total', 20 + n % 400, 'failed',
         CASE WHEN reason = 'failed' THEN 1 + n % 4 ELSE 0 END, 'not_run', n % 9, 'failed_jobs', '[]'::jsonb) END,
       n % 500 = 0, state.installation, 'SSH ' || account || '@' || host || ':22', n % 5000000, n % 20000 = 0,
       CASE WHEN status = 'ACTIVE' AND n % 20 = 0 THEN now() - interval '2 hours' END
FROM state JOIN profiles_runnerprofile p ON p.name = profile ORDER BY n;

-- Five records of each run: its start, and four commands of the time around it. An eighth did not succeed.
INSERT INTO runners_auditrecord
       (created, actor, token, address, endpoint, profile_name, profile_id, expid, run_id, argv, outcome, detail,
        duration_ms, request_id, changes)
SELECT s.created + k * interval '7 minutes',
       CASE WHEN (n + k) % 400 = 0 THEN '' ELSE s.starter END,
       CASE WHEN n % 3 = 0 THEN 'asr_' || left(md5(person::text), 11) ELSE '' END,
       '192.0.2.' || person % 250,
       endpoint, s.profile, r.profile_id, s.expid, CASE WHEN k < 2 THEN r.id END,
       jsonb_build_array('autosubmit', 'run', s.expid),
       CASE WHEN (n * 5 + k) % 8 > 0 THEN 'ok' ELSE
         (ARRAY['command_failed', 'machine_unreachable', 'already_running', 'timeout', 'invalid_request', 'forbidden',
                'outcome_unknown', 'dry_run'])[1 + n / 8 % 8] END,
       CASE WHEN (n * 5 + k) % 8 > 0 THEN '' ELSE 'Experiment ' || s.expid || ' on ' || s.host ||
         ': the command ended with exit code ' || n % 120 || '; see ' || left(md5((n * k)::text), 8) || '.log' END,
       extract(epoch FROM lasted)::int % 4000, md5((n * 5 + k)::text),
       CASE WHEN endpoint = 'change-configuration' THEN jsonb_build_array(jsonb_build_object('action', 'change', 'kind',
         'profile', 'object', s.profile, 'before', '{}'::jsonb, 'after', '{}'::jsonb)) END
FROM state s JOIN runners_runnerrun r ON r.key = md5(n::text || 'run'), generate_series(0, 4) k,
     LATERAL (SELECT CASE k WHEN 0 THEN 'run-experiment'
       WHEN 1 THEN CASE WHEN s.reason = 'stopped' THEN 'stop-experiment' ELSE 'inspect-experiment' END
       WHEN 2 THEN 'set-job-status' WHEN 3 THEN 'create-job-list'
       ELSE (ARRAY['recover-experiment', 'refresh-experiment', 'check-profile', 'create-experiment', 'create-token',
                   'change-configuration', 'archive-experiment'])[1 + (n % 97) % 7] END AS endpoint) e
ORDER BY n, k;

INSERT INTO runners_operation
       (key, kind, expid, profile_name, profile_id, config, argv, timeout, status, exit_code, result, error, notes, pid,
        identity, host, created, modified, finished, confirmed_at, reachable, unreachable_detail, started_by,
        installation, machine)
SELECT md5(n::text || 'operation'), (ARRAY['create-experiment', 'create-job-list', 'recover-experiment',
         'inspect-experiment', 'archive-experiment'])[1 + n % 5],
       s.expid, profile, r.profile_id, r.config, jsonb_build_array('autosubmit', 'create', s.expid), 300,
       CASE WHEN n > :runs - 50 THEN 'running' WHEN luck < 0.85 THEN 'succeeded' WHEN luck < 0.99 THEN 'failed'
         ELSE 'unknown' END,
       CASE WHEN n <= :runs - 50 THEN CASE WHEN luck < 0.85 THEN 0 ELSE 1 END END, NULL, NULL, '[]', 1000 + n % 30000,
       r.identity, s.host, s.created, s.created, CASE WHEN n <= :runs - 50 THEN s.created + interval '40 seconds' END,
       s.created + interval '40 seconds', true, '', starter, s.installation, r.machine
FROM state s JOIN runners_runnerrun r ON r.key = md5(n::text || 'run') WHERE n % 5 = 0 OR n > :runs - 50 ORDER BY n;

INSERT INTO runners_webhook (name, url, secret, events, profile_names, enabled, created)
SELECT 'receiver' || i, 'https://hooks.example.org/' || i, 'whsec_' || encode(sha256(i::text::bytea), 'base64'), '[]',
       '[]', i < 36, now() - interval '5 years'
FROM generate_series(1, 40) i;

INSERT INTO runners_webhookdelivery
       (webhook_id, run_id, event, message_id, payload, created, attempts, next_attempt, delivered_at, last_status,
        last_error)
SELECT w.id, r.id, CASE WHEN status = 'COMPLETED' THEN 'run.completed' WHEN reason = 'never_started'
         THEN 'run.never_started' ELSE 'run.terminated' END,
       'msg_' || md5(r.id::text || 'message'), jsonb_build_object('type', 'run.completed', 'data',
         jsonb_build_object('run_id', r.id, 'expid', r.expid, 'status', r.status)),
       r.finished, 1 + r.id % 3,
       CASE WHEN r.id % 5000 = 0 THEN now() + interval '1 hour' END,
       CASE WHEN r.id % 5000 <> 0 AND r.id % 77 <> 0 THEN r.finished + interval '2 seconds' END,
       CASE WHEN r.id % 5000 = 0 OR r.id % 77 = 0 THEN 503 ELSE 200 END,
       CASE WHEN r.id % 5000 = 0 OR r.id % 77 = 0 THEN 'The receiver answered 503.' ELSE '' END
FROM runners_runnerrun r JOIN runners_webhook w ON w.name = 'receiver' || 1 + r.id % 40
WHERE r.finished IS NOT NULL ORDER BY r.id;

INSERT INTO runners_mailsubscription (user_id, created)
SELECT id, now() - interval '1 year' FROM auth_user WHERE username LIKE 'person%';

INSERT INTO runners_mail
       (user_id, run_id, subscription_id, event, subject, body, created, attempts, next_attempt, sent_at, last_error)
SELECT u.id, r.id, m.id, 'run.terminated', r.expid || ' ended: ' || r.status, 'Run ' || r.id || ' has ended.',
       r.finished, 1, CASE WHEN r.id % 5000 = 0 THEN now() + interval '1 hour' END,
       CASE WHEN r.id % 5000 <> 0 AND r.id % 77 <> 0 THEN r.finished + interval '2 seconds' END, ''
FROM runners_runnerrun r JOIN auth_user u ON u.username = r.started_by JOIN runners_mailsubscription m ON m.user_id = u.id
WHERE r.status = 'TERMINATED' ORDER BY r.id;

INSERT INTO runners_experimentdescription
       (expid, installation, machine, node, description, search_text, seen_at)
SELECT expid, r.installation, CASE WHEN r.installation = 'default' THEN r.machine ELSE '' END, '', text, lower(text), now()
FROM (SELECT DISTINCT ON (expid, r.installation) * FROM runners_runnerrun r ORDER BY expid, r.installation, id DESC) r,
     LATERAL (SELECT (ARRAY['Historical', 'Decadal', 'Seasonal', 'Control', 'Scenario'])[1 + r.id % 5] || ' forecast with '
       || (ARRAY['ocean', 'atmosphere', 'sea ice', 'land', 'chemistry'])[1 + r.id / 5 % 5] || ' resolution T'
       || 63 * (1 + r.id % 9) || ', member ' || r.id % 51 || ', ' || left(md5(expid), 6) AS text) t;

INSERT INTO runners_idempotencyrecord
       (caller, key, endpoint, fingerprint, created, owner, owned_until, run_key, answer_status, answer_body,
        answer_headers)
SELECT started_by, md5(id::text || 'idempotency'), 'run-experiment', md5(id::text) || md5(id::text), created, '', created,
       key, 200, '{}', '{}'
FROM runners_runnerrun ORDER BY id DESC LIMIT :runs / 50;

INSERT INTO runners_machine (name, is_answering, since, last_answer, last_error, last_error_code, last_error_at)
SELECT 'login' || i || '.example.org', i % 12 > 0, now() - interval '1 day', now(),
       CASE WHEN i % 12 = 0 THEN 'No route to host' ELSE '' END,
       CASE WHEN i % 12 = 0 THEN 'machine_unreachable' ELSE '' END, CASE WHEN i % 12 = 0 THEN now() END
FROM generate_series(1, 60) i;

INSERT INTO runners_maintenance (machine, text, starts, ends, announced_by)
SELECT 'login' || 1 + i % 60 || '.example.org', 'New disks, part ' || i, now() - i * interval '3 days',
       now() - i * interval '3 days' + interval '6 hours', 'person001'
FROM generate_series(-5, 1000) i;

INSERT INTO runners_trustedhostkey (host, key_type, key, approved_by, created)
SELECT 'login' || i || '.example.org', type, encode(sha256((type || i)::bytea), 'base64'), 'person001', now()
FROM generate_series(1, 60) i, unnest(ARRAY['ssh-ed25519', 'ecdsa-sha2-nistp256']) type;

INSERT INTO runners_apitoken (digest, token_key, user_id, created, expiry, name, scope, last_used)
SELECT encode(sha512((u.id * 10 + i)::text::bytea), 'hex'), 'asr_' || left(md5((u.id * 10 + i)::text), 11), u.id, now(),
       CASE WHEN i < 3 THEN now() + (i - 1) * interval '30 days' END, 'token ' || i,
       (ARRAY['read', 'run', 'manage'])[i], now()
FROM auth_user u, generate_series(1, 3) i WHERE username LIKE 'person%';

INSERT INTO runners_seenforeignrun (profile_name, profile_id, expid, installation, host, "user", pid, command, seen_at)
SELECT DISTINCT ON (expid, installation) profile_name, profile_id, expid, installation, host, "user", 4242,
       'autosubmit run ' || expid, now()
FROM (SELECT * FROM runners_runnerrun ORDER BY id DESC LIMIT :runs / 500) r;

INSERT INTO runners_seendatabase (profile_id, "user", ssh_host, host, location, seen)
SELECT p.id, 'acc' || lpad(i::text, 6, '0'), ssh_host, ssh_host, '/esarchive/autosubmit/as_metadata.db', now()
FROM profiles_runnerprofile p, generate_series(1, 30) i;

INSERT INTO runners_lastformvalues (user_id, profile_name, values, modified)
SELECT id, 'MACHINE01', '{}', now() FROM auth_user WHERE username LIKE 'person%';

INSERT INTO django_admin_log (action_time, object_id, object_repr, action_flag, change_message, content_type_id, user_id)
SELECT now() - i * interval '1 hour', p.id, p.name, 2, '[{"changed": {"fields": ["enabled"]}}]', c.id, u.id
FROM generate_series(1, :runs / 50) i
JOIN profiles_runnerprofile p ON p.name = 'MACHINE' || lpad((1 + i % 60)::text, 2, '0')
JOIN django_content_type c ON c.app_label = 'profiles' AND c.model = 'runnerprofile'
JOIN auth_user u ON u.username = 'person001';

INSERT INTO django_session (session_key, session_data, expire_date)
SELECT md5(i::text || 'session'), 'e30:' || md5(i::text), now() + interval '1 week' FROM generate_series(1, 5000) i;
