import java.io.File;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;

/** HDFS on 127.0.0.1 in a folder, until standard input ends; prints the name node's port. */
public class Cluster {
    public static void main(String[] arguments) throws Exception {
        Configuration settings = new Configuration();
        settings.setLong("dfs.blocksize", 1 << 20);
        try (MiniDFSCluster cluster =
                new MiniDFSCluster.Builder(settings, new File(arguments[0])).numDataNodes(1).build()) {
            cluster.waitActive();
            System.out.println(cluster.getNameNodePort());
            System.in.read();
        }
    }
}
