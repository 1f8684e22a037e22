import java.io.BufferedReader;
import java.io.File;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.hadoop.yarn.server.nodemanager.NodeManager;
import org.apache.hadoop.yarn.server.resourcemanager.ResourceManager;

/**
 * HDFS with two data nodes, and YARN with two node managers if "yarn" is asked for, on 127.0.0.1 at free ports.
 *
 * <p>Arguments: a folder, and perhaps the word yarn. Prints the URL once all is up; FOLDER/conf is then the
 * HADOOP_CONF_DIR. The line "stop datanode N" on standard input stops one; the end of the input ends all.
 */
public class Cluster {
    static final int NODES = 2;
    static final String ANY_PORT = "127.0.0.1:0";

    public static void main(String[] arguments) {
        int status = 1;
        try {
            run(new File(arguments[0]).getAbsoluteFile(), arguments.length > 1);
            status = 0;
        } catch (Throwable error) {
            error.printStackTrace();
        }
        // What is left is threads that wait for each other, and a folder that goes away.
        Runtime.getRuntime().halt(status);
    }

    static void run(File folder, boolean withYarn) throws Exception {
        MiniDFSCluster hdfs = startHdfs(folder);
        String url = "hdfs://127.0.0.1:" + hdfs.getNameNodePort();
        write(folder, "core-site.xml", only("fs.defaultFS", url));
        write(folder, "hdfs-site.xml", only("dfs.replication", "" + NODES));
        if (withYarn) {
            write(folder, "yarn-site.xml", startYarn(folder, url));
        }
        System.out.println(url);
        obey(hdfs);
    }

    static MiniDFSCluster startHdfs(File folder) throws Exception {
        Configuration settings = new Configuration();
        settings.setLong("dfs.blocksize", 1 << 20);
        settings.setInt("dfs.heartbeat.interval", 1);
        settings.setInt("dfs.namenode.heartbeat.recheck-interval", 1000);
        MiniDFSCluster cluster =
                new MiniDFSCluster.Builder(settings, new File(folder, "hdfs")).numDataNodes(NODES).build();
        cluster.waitActive();
        return cluster;
    }

    /** Starts YARN's own services; returns what a client must know of them. */
    static Configuration startYarn(File folder, String url) throws Exception {
        YarnConfiguration settings = new YarnConfiguration();
        settings.set("fs.defaultFS", url);
        settings.set("yarn.node-attribute.fs-store.root-dir", url + "/yarn/attributes");
        settings.set("yarn.resourcemanager.hostname", "127.0.0.1");
        for (String name : List.of("", ".scheduler", ".resource-tracker", ".admin", ".webapp")) {
            settings.set("yarn.resourcemanager" + name + ".address", ANY_PORT);
        }
        settings.set("yarn.resourcemanager.nodemanagers.heartbeat-interval-ms", "100");
        settings.set("yarn.scheduler.minimum-allocation-mb", "128");
        settings.set("yarn.scheduler.capacity.root.queues", "default");
        settings.set("yarn.scheduler.capacity.root.default.capacity", "100");
        settings.set("yarn.scheduler.capacity.maximum-am-resource-percent", "1");
        ResourceManager resources = new ResourceManager();
        resources.init(settings);
        resources.start();
        for (int node = 0; node < NODES; node++) {
            startNode(new YarnConfiguration(settings), new File(folder, "node-" + node));
        }
        while (resources.getResourceScheduler().getNumClusterNodes() < NODES) {
            Thread.sleep(50);
        }
        Configuration client = new Configuration(false);
        for (String name : List.of("", ".scheduler", ".admin")) {
            String address = "yarn.resourcemanager" + name + ".address";
            client.set(address, settings.get(address));
        }
        client.set("yarn.resourcemanager.hostname", "127.0.0.1");
        return client;
    }

    static void startNode(Configuration settings, File folder) {
        for (String name : List.of("", ".localizer", ".webapp", ".collector-service")) {
            settings.set("yarn.nodemanager" + name + ".address", ANY_PORT);
        }
        settings.set("yarn.nodemanager.local-dirs", new File(folder, "local").getPath());
        settings.set("yarn.nodemanager.log-dirs", new File(folder, "logs").getPath());
        settings.set("yarn.nodemanager.resource.memory-mb", "6144");
        settings.set("yarn.nodemanager.resource.cpu-vcores", "8");
        settings.set("yarn.nodemanager.vmem-check-enabled", "false");
        settings.set("yarn.nodemanager.disk-health-checker.enable", "false");
        settings.set("yarn.nodemanager.admin-env", "JAVA_HOME=" + System.getProperty("java.home"));
        NodeManager node = new NodeManager();
        node.init(settings);
        node.start();
    }

    static void obey(MiniDFSCluster hdfs) throws Exception {
        List<DataNode> nodes = List.copyOf(hdfs.getDataNodes());
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            DataNode node = nodes.get(Integer.parseInt(line.replace("stop datanode ", "")));
            hdfs.stopDataNode(hdfs.getDataNodes().indexOf(node));
            System.out.println(line);
        }
    }

    static Configuration only(String name, String value) {
        Configuration settings = new Configuration(false);
        settings.set(name, value);
        return settings;
    }

    static void write(File folder, String name, Configuration settings) throws Exception {
        File conf = new File(folder, "conf");
        conf.mkdirs();
        try (FileOutputStream file = new FileOutputStream(new File(conf, name))) {
            settings.writeXml(file);
        }
    }
}
