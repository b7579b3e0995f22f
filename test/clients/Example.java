import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.util.concurrent.CompletableFuture;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** pg_clerk with JDBC. PGHOST, PGPORT, PGUSER and PGDATABASE say where. */
class Example {
    static void ok(boolean good, String what) {
        System.out.println((good ? "ok - " : "not ok - ") + what);
    }

    static Connection connect(String application) throws SQLException {
        var env = System.getenv();
        return DriverManager.getConnection("jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/"
                + env.get("PGDATABASE") + "?ApplicationName=" + application, env.get("PGUSER"), null);
    }

    static String first(PreparedStatement statement) throws SQLException {
        try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            return rows.getString(1);
        }
    }

    static PGobject jsonb(String text) throws SQLException {
        var object = new PGobject();
        object.setType("jsonb");
        object.setValue(text);
        return object;
    }

    /** Runs a statement, and returns its SQLSTATE. */
    static String state(Statement statement, String sql) {
        try {
            statement.execute(sql);
            return "00000";
        } catch (SQLException e) {
            return e.getSQLState();
        }
    }

    public static void main(String[] args) throws Exception {
        String params = "{\"name\": \"Acme\", \"domains\": [\"acme.jdbc.example\"], \"saml\": {}}";

        try (Connection conn = connect("jdbc"); Connection other = connect("other")) {
            // A PGobject needs no cast; jsonb comes back as text.
            try (var create = conn.prepareStatement("SELECT create_enterprise_connection(?)")) {
                create.setObject(1, jsonb(params));
                ok(first(create).contains("\"name\": \"Acme\""), "create from a PGobject");
            }

            // Names of arguments are in the text. A string needs a cast to jsonb.
            try (var create = conn.prepareStatement(
                    "SELECT create_enterprise_connection(name => ?, domains => ?, saml => ?::jsonb)")) {
                create.setString(1, "Beta");
                create.setArray(2, conn.createArrayOf("text", new String[] {"beta.jdbc.example"}));
                create.setString(3, "{}");
                ok(first(create).contains("beta.jdbc.example"), "named arguments");
            }

            // The domain is taken.
            try (var create = conn.prepareStatement("SELECT create_enterprise_connection(?::jsonb)")) {
                create.setString(1, params);
                first(create);
                ok(false, "no error");
            } catch (PSQLException e) {
                ServerErrorMessage error = e.getServerErrorMessage();
                ok(e.getSQLState().equals("KC422")
                        && error.getConstraint().equals("organization_domain_exists_for_enterprise_connection")
                        && error.getColumn().equals("domains"), "KC422 with Clerk's code and parameter");
            }

            // A call that waits is cancelled from another thread.
            try (Statement late = conn.createStatement(); Statement until = other.createStatement()) {
                var call = CompletableFuture.supplyAsync(() -> state(late,
                        "SELECT create_enterprise_connection(name => 'Late', domains => '{late.jdbc.example}', saml => '{}')"));
                until.execute("SELECT until_waiting('jdbc')");
                late.cancel();
                ok(call.get().equals("57014"), "cancel");
            }

            // The worker tells who listens.
            try (Statement listen = conn.createStatement();
                    var enqueue = conn.prepareStatement("SELECT enqueue_enterprise_connection('upsert', ?, key => 'jdbc:1')")) {
                listen.execute("LISTEN pg_clerk");
                enqueue.setObject(1, jsonb(params.replace("acme", "gamma")));
                String request = first(enqueue);
                String payload = "";
                while (!payload.contains("\"key\":\"jdbc:1\"")) {
                    for (PGNotification n : conn.unwrap(PGConnection.class).getNotifications(1000)) {
                        payload = n.getParameter();
                    }
                }
                ok(payload.contains("\"request\":" + request + ",") && payload.contains("\"state\":\"delivered\""), "notification");
            }

            // A rollback does not undo a direct call: a warning says what is left.
            conn.setAutoCommit(false);
            try (Statement create = conn.createStatement()) {
                create.execute("SELECT create_enterprise_connection(name => 'Delta', domains => '{delta.jdbc.example}', saml => '{}')");
            }
            conn.rollback();
            SQLWarning warning = conn.getWarnings();
            ok(warning != null && warning.getMessage().contains("exists at Clerk"), "warning of the rollback");
        }
    }
}
